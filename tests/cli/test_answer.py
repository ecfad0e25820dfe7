"""Events in, text and figures out."""

import pytest

from backend.cli.answer import Answer, create_event, responses_url

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 2,
    "x_timing": {"ttft_ms": 3},
}


def test_a_whole_answer() -> None:
    answer = Answer()
    assert answer.apply({"type": "response.created", "response": {"id": "r1"}}) == ""
    assert answer.apply({"type": "x.cache", "cached_tokens": 4}) == ""
    assert answer.apply({"type": "something.new", "response": None}) == ""
    assert answer.apply({"type": "response.output_text.delta", "delta": "Hel"}) == "Hel"
    assert answer.apply({"type": "response.output_text.delta", "delta": "lo"}) == "lo"
    assert not answer.done
    answer.apply({"type": "response.completed", "response": {"id": "r1", "usage": USAGE}})
    assert answer.done
    assert (answer.text, answer.response_id, answer.error, answer.stopped_by) == ("Hello", "r1", "", "")
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (9, 4, 2)
    assert answer.timing == {"ttft_ms": 3}


def test_incomplete_says_why() -> None:
    answer = Answer()
    answer.apply({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "cancelled"}}})
    assert (answer.done, answer.stopped_by, answer.error) == (True, "cancelled", "")
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (None, None, None)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "status": 400, "error": {"code": "c", "message": "m"}},
        {"type": "response.failed", "response": {"id": "r", "error": {"code": "c", "message": "m"}}},
    ],
)
def test_failures(event: dict[str, object]) -> None:
    answer = Answer()
    answer.apply(event)
    assert (answer.done, answer.error) == (True, "c: m")


def test_create_leaves_out_what_was_not_said() -> None:
    assert create_event("hi", instructions=None, temperature=0.0) == {
        "type": "response.create",
        "input": "hi",
        "temperature": 0.0,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ws://h:1", "ws://h:1/v1/responses"),
        ("http://h:1/", "ws://h:1/v1/responses"),
        ("https://h/v1", "wss://h/v1/responses"),
        ("wss://h/v1/responses", "wss://h/v1/responses"),
    ],
)
def test_url(given: str, expected: str) -> None:
    assert responses_url(given) == expected


@pytest.mark.parametrize("given", ["", "h:1", "ftp://h", "ws://", "127.0.0.1"])
def test_wrong_url(given: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        responses_url(given)
