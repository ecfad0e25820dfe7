"""Any client and any engine, as Hypothesis plays them: the promises hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.messages import Output, Started
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import make_house
from tests.server.session.conftest import TERMINAL, Desk, create

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
lanes = st.sampled_from(["a", "b", None])
fields = st.fixed_dictionaries(
    {},
    optional={
        name: json_values
        for name in (
            "input",
            "model",
            "temperature",
            "stop",
            "seed",
            "metadata",
            "text",
            "tools",
            "stream_id",
            "prompt",
        )
    },
)
messages = st.one_of(
    st.binary(max_size=20),
    json_values.map(json.dumps),
    fields.map(lambda extra: json.dumps({"type": "response.create", **extra})),
    st.tuples(lanes, st.sampled_from(["", "cost", "🙂"])).map(
        lambda pair: json.dumps(create(stream_id=pair[0], **({"stop": pair[1]} if pair[1] else {})))
    ),
    lanes.map(lambda lane: json.dumps({"type": "response.cancel", "stream_id": lane})),
)
engine_steps = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["start", "token", "token", "token", "stop", "length", "error", "gone"]),
    st.lists(st.integers(0, 510), max_size=3),
)
actions = st.lists(st.one_of(messages, engine_steps, st.just("previous"), st.just("prepare")), max_size=40)


@settings(max_examples=150, deadline=None)
@given(actions=actions)
def test_any_client_and_any_engine(tmp_folder: Path, tokenizer: TextTokenizer, actions: list[Any]) -> None:
    desk = Desk(make_house(tmp_folder, tokenizer), later=True)
    started: set[int] = set()
    for action in actions:
        if action == "prepare":
            if desk.preparing:
                desk.prepare()
        elif action == "previous":
            done = [e["response"]["id"] for e in desk.sent if e["type"] in TERMINAL]
            desk.say(create(previous_response_id=done[-1] if done else "resp_0", stream_id="p"))
        elif isinstance(action, tuple):
            _engine_step(desk, started, *action)
        else:
            desk.say(action)
    desk.close()
    _check_promises(desk)


@pytest.fixture(scope="session")
def tmp_folder(folder: Path) -> Path:
    return folder


def _engine_step(desk: Desk, started: set[int], which: int, kind: str, tokens: list[int]) -> None:
    if not desk.requests:
        return
    request = desk.requests[which % len(desk.requests)]
    if kind == "gone":
        desk.gone(request, "gone")
    elif request not in started:  # an engine says Started first
        started.add(request)
        desk.engine(request, Started(request, 0, 0.0))
    else:
        desk.engine(request, Output(request, tokens, "" if kind in ("start", "token") else kind))


def _check_promises(desk: Desk) -> None:
    lanes: dict[str | None, str | None] = {}
    numbers: dict[str, list[int]] = {}
    text: dict[str, str] = {}
    for event in desk.sent:
        if "sequence_number" not in event:
            assert event["type"] in ("error", "x.session", "x.pong")
            continue
        lane = event.get("stream_id")
        if event["type"] == "response.created":
            assert lanes.get(lane) is None
            lanes[lane] = event["response"]["id"]
        response = lanes[lane]
        assert response is not None, "an event of a response that has ended"
        numbers.setdefault(response, []).append(event["sequence_number"])
        if event["type"] == "response.output_text.delta":
            assert event["delta"]
            text[response] = text.get(response, "") + event["delta"]
        if event["type"] in TERMINAL:
            lanes[lane] = None
            assert event["response"]["id"] == response
            shown = "".join(part["text"] for item in event["response"]["output"] for part in item["content"])
            assert shown == text.get(response, "")
            assert event["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 0
    for sequence in numbers.values():
        assert sequence == list(range(len(sequence)))
