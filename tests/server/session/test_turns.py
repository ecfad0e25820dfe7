"""A turn from its question to its end: continued, stopped, cancelled, failed."""

import pytest

from backend.engine.messages import Output, Started
from tests.server.conftest import House
from tests.server.session.conftest import Desk, create, names, text_bytes


def test_a_whole_turn(desk: Desk) -> None:
    assert names(desk.sends(lambda: desk.session.opened(0.0))) == ["x.session"]
    tokens = desk.house.tokenizer.encode_plain("Hi 🙂!")
    assert names(desk.say(create(instructions="Be kind.", max_output_tokens=20))) == ["response.created"]
    (request,) = desk.requests
    assert desk.submits[request].max_tokens == 20
    assert names(desk.engine(request, Started(request, 16, 2.0))) == [
        "x.cache",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    for token in tokens:
        desk.engine(request, Output(request, [token]))
    end = desk.house.tokenizer.library.token_to_id("<|im_end|>")
    assert names(desk.engine(request, Output(request, [end], "stop"))) == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event["delta"] for event in desk.sent if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "Hi 🙂!"
    assert not any("\ufffd" in delta for delta in deltas)
    assert [e["sequence_number"] for e in desk.sent[1:]] == list(range(len(desk.sent) - 1))
    response = desk.sent[-1]["response"]
    usage = response["usage"]
    assert response["output"][0]["content"][0]["text"] == "Hi 🙂!"
    assert usage["input_tokens"] == len(desk.submits[request].prompt) // 4
    assert usage["input_tokens_details"] == {"cached_tokens": 16}
    assert usage["output_tokens"] == len(tokens) + 1
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["x_timing"]["queue_ms"] == 2.0
    assert usage["x_timing"]["decode_ms"] == 1000.0 * len(tokens)
    assert usage["x_timing"]["tokens_per_s"] == 1.0


def test_without_our_subprotocol_there_are_no_extension_events(quiet_house: House) -> None:
    desk = Desk(quiet_house, extensions=False)
    desk.session.opened(0.0)
    desk.say(create())
    desk.engine(desk.requests[0], Started(desk.requests[0], 0, 0.0))
    assert not any(name.startswith("x.") for name in names(desk.sent))
    assert [e["sequence_number"] for e in desk.sent] == list(range(len(desk.sent)))


def test_the_next_turn_sends_only_what_is_new(desk: Desk) -> None:
    text = desk.house.tokenizer
    desk.say(create(prompt={"id": "bakery"}, stream_id="a"))
    first = desk.requests[0]
    desk.engine(first, Started(first, 0, 0.0))
    drawn = [*text.encode_plain("Hi"), text.library.token_to_id("<|im_end|>")]
    ended = desk.engine(first, Output(first, drawn, "stop"))
    desk.say(create(input="And bread?", previous_response_id=ended[-1]["response"]["id"], stream_id="a"))
    second = desk.requests[1]
    past = desk.submits[first].prompt + text_bytes(drawn)
    assert desk.submits[second].prompt.startswith(past)
    (cache, *_) = desk.engine(second, Started(second, len(past) // 4 + 5, 0.0))
    system, history, shared = (cache["by"][name] for name in ("system", "history", "shared"))
    assert shared == 5 and system > 300 and system + history == len(past) // 4


def test_other_instructions_replace_the_system_prompt(desk: Desk) -> None:
    desk.say(create(instructions="One."))
    first = desk.requests[0]
    ended = desk.engine(first, Output(first, desk.house.tokenizer.encode_plain("Hi"), "length"))
    desk.say(create(input="Again", instructions="Two.", previous_response_id=ended[-1]["response"]["id"]))
    ids = memoryview(desk.submits[desk.requests[1]].prompt).cast("I").tolist()
    shown = desk.house.tokenizer.library.decode(ids, skip_special_tokens=False)
    assert "Two." in shown and "One." not in shown and "Hi" in shown


def test_stop_strings_end_it_before_them(desk: Desk) -> None:
    desk.say(create(stop=["cost", "zzz"]))
    (request,) = desk.requests
    desk.engine(request, Started(request, 0, 0.0))
    for token in desk.house.tokenizer.encode_plain("A croissant costs three"):
        desk.engine(request, Output(request, [token]))
    assert desk.sent[-1]["type"] == "response.completed"
    assert desk.sent[-1]["response"]["output"][0]["content"][0]["text"] == "A croissant "
    assert desk.abandoned == [request]


@pytest.mark.parametrize("by", ["response_id", "stream_id"])
def test_cancel_is_idempotent_and_exact(desk: Desk, by: str) -> None:
    desk.say(create(stream_id="lane"))
    (request,) = desk.requests
    created = desk.sent[-1]["response"]["id"]
    desk.engine(request, Started(request, 0, 0.0))
    target = {"response_id": created} if by == "response_id" else {"stream_id": "lane"}
    (refused,) = desk.say({"type": "response.cancel", "response_id": created[:-1]})
    assert refused["error"]["code"] == "response_not_found" and desk.abandoned == []
    ended = desk.say({"type": "response.cancel", **target})
    assert ended[-1]["response"]["incomplete_details"] == {"reason": "cancelled"}
    assert desk.abandoned == [request]
    assert desk.say({"type": "response.cancel", **target}) == []
    assert desk.engine(request, Output(request, [300])) == []


def test_cancel_while_the_prompt_is_made(quiet_house: House) -> None:
    desk = Desk(quiet_house, later=True)
    desk.say(create(stream_id="a"))
    assert names(desk.say({"type": "response.cancel", "stream_id": "a"})) == ["response.created", "response.incomplete"]
    assert desk.prepare() == [] and desk.requests == []


def test_lanes_are_bounded_and_their_own(desk: Desk) -> None:
    for lane in range(16):
        assert desk.say(create(stream_id=f"lane{lane}"))[0]["stream_id"] == f"lane{lane}"
    (busy,) = desk.say(create(stream_id="lane3"))
    assert busy["error"]["param"] == "stream_id" and busy["stream_id"] == "lane3"
    (full,) = desk.say(create(stream_id="lane16"))
    assert full["error"]["code"] == "websocket_stream_limit_reached"
    desk.close(grace=False)
    assert sorted(desk.abandoned) == sorted(desk.requests)


def test_the_engines_failure_is_the_responses(desk: Desk) -> None:
    desk.say(create())
    (request,) = desk.requests
    desk.engine(request, Started(request, 0, 0.0))
    (failed,) = desk.engine(request, Output(request, [], "error", "engine_error", "broke"))
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "engine_error", "message": "broke"}
    assert desk.gone(request, "late") == []


@pytest.mark.parametrize(
    ("engines", "after_s", "error"),
    [
        ("server_overloaded", 2.5, {"code": "server_overloaded", "message": "busy", "x_retry_after_s": 2.5}),
        ("quota_exceeded", 0.0, {"code": "insufficient_quota", "message": "busy"}),
        ("context_length_exceeded", 0.0, {"code": "context_length_exceeded", "message": "busy"}),
    ],
)
def test_the_engines_refusal_is_the_responses_end(
    desk: Desk, engines: str, after_s: float, error: dict[str, object]
) -> None:
    desk.say(create())
    (request,) = desk.requests
    (failed,) = desk.engine(request, Output(request, [], "error", engines, "busy", after_s))
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == error and failed["response"]["output"] == []
    assert names(desk.say(create())) == ["response.created"]


def test_waiting_in_vain_is_incomplete(desk: Desk) -> None:
    desk.say(create())
    (request,) = desk.requests
    (ended,) = desk.engine(request, Output(request, [], "deadline", message="it has not started in time"))
    assert ended["type"] == "response.incomplete"
    assert ended["response"]["incomplete_details"] == {"reason": "deadline"}


def test_the_engine_is_told_what_is_system_and_what_history(desk: Desk) -> None:
    desk.say(create(instructions="Be kind.", stream_id="a"))
    first = desk.submits[desk.requests[0]]
    system = len(desk.house.service.model.encoder.system_prefix("Be kind."))
    assert (first.system_tokens, first.history_tokens, first.queue_seconds) == (system, 0, 60.0)
    desk.engine(first.request, Started(first.request, 0, 0.0))
    end = desk.house.tokenizer.library.token_to_id("<|im_end|>")
    (*_, ended) = desk.engine(first.request, Output(first.request, [end], "stop"))
    desk.say(create(input="And bread?", previous_response_id=ended["response"]["id"], stream_id="a"))
    second = desk.submits[desk.requests[1]]
    assert (second.system_tokens, second.history_tokens) == (system, len(first.prompt) // 4 + 1)


def test_ping(desk: Desk) -> None:
    assert desk.say({"type": "x.ping", "t": 12.5}) == [{"type": "x.pong", "t": 12.5}]
