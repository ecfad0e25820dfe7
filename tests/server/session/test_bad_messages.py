"""What is refused, by name."""

import pytest

from tests.server.session.conftest import Desk, create, names

LONG = "croissant " * 3000
BAD: list[tuple[object, str, str | None]] = [
    (b"{", "invalid_json", None),
    ("", "invalid_json", None),
    (b'{"type": "x.ping", "t": NaN}', "invalid_json", None),
    (b'{"type": "\xff"}', "invalid_json", None),
    (b'{"type": "x.ping", "z": "\\ud800"}', "invalid_json", None),
    ('{"type": "x.ping", "z": "\ud800"}', "invalid_json", None),
    (b'{"type": "x.ping", "z": ' + b"[" * 100_000, "invalid_json", None),
    (b"[]", "invalid_request", None),
    ({}, "invalid_request", "type"),
    ({"type": 3}, "invalid_request", "type"),
    ({"type": "x.nothing"}, "unknown_event", "type"),
    ({"type": "response.cancel"}, "invalid_request", "response_id"),
    (create(stream_id=""), "invalid_request", "stream_id"),
    (create(stream_id="x" * 500), "invalid_request", "stream_id"),
    (create(model="gpt-9"), "model_not_found", "model"),
    (create(input=None), "invalid_request", "input"),
    (create(input=[]), "invalid_request", "input"),
    (create(input=3), "invalid_request", "input"),
    (create(input=LONG), "context_length_exceeded", "input"),
    (create(input=[{"role": "user", "content": "x"}] * 3000), "invalid_request", "input"),
    (create(input=[{"role": "boss", "content": "x"}]), "invalid_request", "input[0].role"),
    (create(input=[{"role": "user"}]), "invalid_request", "input[0].content"),
    (create(input=[{"type": "function_call_output"}]), "unsupported_content", "input[0].type"),
    (
        create(input=[{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]),
        "unsupported_content",
        "input[0].content[0]",
    ),
    (create(previous_response_id="resp_x"), "previous_response_not_found", "previous_response_id"),
    (create(prompt={"id": "nobody"}), "prompt_not_found", "prompt.id"),
    (create(prompt={"id": "bakery", "version": "2"}), "prompt_not_found", "prompt.version"),
    (create(prompt={"id": "bakery", "variables": {"x": "y"}}), "invalid_request", "prompt.variables"),
    (create(prompt={"id": "bakery"}, instructions="x"), "invalid_request", "instructions"),
    (create(temperature=-0.1), "invalid_request", "temperature"),
    (create(temperature=10**30), "invalid_request", "temperature"),
    (create(temperature="hot"), "invalid_request", "temperature"),
    (b'{"type": "response.create", "input": "x", "temperature": 1e400}', "invalid_request", "temperature"),
    (create(top_p=1.5), "invalid_request", "top_p"),
    (create(top_k=-1), "invalid_request", "top_k"),
    (create(seed=10**30), "invalid_request", "seed"),
    (create(max_output_tokens=0), "invalid_request", "max_output_tokens"),
    (create(max_output_tokens=10**30), "invalid_request", "max_output_tokens"),
    (create(max_output_tokens=1.5), "invalid_request", "max_output_tokens"),
    (create(stop=["x"] * 5), "invalid_request", "stop"),
    (create(stop=""), "invalid_request", "stop"),
    (create(metadata={str(i): "x" for i in range(17)}), "invalid_request", "metadata"),
    (create(tools=[{"type": "function"}]), "unsupported_parameter", "tools"),
    (create(text={"format": {"type": "json_schema"}}), "unsupported_parameter", "text.format"),
    (create(top_logprobs=21), "invalid_request", "top_logprobs"),
    (create(background=True), "unsupported_parameter", "background"),
    (create(generate=False, input=None), "invalid_request", "input"),
    ({"type": "x.resume"}, "invalid_request", None),
    ({"type": "x.resume", "response_id": "resp_x"}, "response_not_found", "response_id"),
    ({"type": "x.resume", "response_id": "r", "after": 1.5}, "invalid_request", "after"),
    ({"type": "x.subscribe"}, "invalid_request", None),
    ({"type": "x.subscribe", "topics": []}, "invalid_request", "topics"),
    ({"type": "x.subscribe", "topics": ["keys"]}, "invalid_request", "topics[0]"),
    ({"type": "x.subscribe", "topics": ["stats"], "max_hz": 1000}, "invalid_request", "max_hz"),
]


@pytest.mark.parametrize(("message", "code", "param"), BAD, ids=map(str, range(len(BAD))))
def test_bad_messages_are_refused_by_name(desk: Desk, message: object, code: str, param: str | None) -> None:
    (event,) = desk.say(message)
    assert event["type"] == "error"
    assert (event["error"]["code"], event["error"]["param"]) == (code, param)
    assert event["error"]["message"] and 400 <= event["status"] < 500
    assert names(desk.say(create())) == ["response.created"]


def test_the_context_error_has_the_numbers(desk: Desk) -> None:
    (event,) = desk.say(create(input=LONG))
    assert "1024" in event["error"]["message"]


def test_more_output_than_fits_is_clamped(desk: Desk) -> None:
    desk.say(create(max_output_tokens=1_000_000))
    submit = desk.submits[desk.requests[0]]
    assert submit.max_tokens == 1024 - len(submit.prompt) // 4


def test_repeated_malformed_messages_close_the_socket(desk: Desk) -> None:
    for _ in range(40):
        desk.say(b"{")
    assert desk.closed is not None and desk.closed.code == 4400
