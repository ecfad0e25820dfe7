"""Warming, storing, waiting, deadlines and what is watched."""

from math import nan

import msgspec
import pytest

from backend.engine.messages import Output, Started
from backend.server.codec import MSGPACK
from backend.server.effects import (
    Watch,
)
from backend.server.identity import Identity
from backend.server.live_events import Batch
from tests.server.conftest import House
from tests.server.session.conftest import Desk, begun, create, names, numbers, text_bytes


def test_a_warmed_prompt_is_computed_and_can_be_continued(desk: Desk) -> None:
    system = desk.house.service.model.encoder.system_prefix("Be kind.")
    desk.say(create(generate=False, input=None, instructions="Be kind."))
    request = desk.requests[-1]
    submit = desk.submits[request]
    assert submit.prompt == system.tobytes() and submit.max_tokens == 1
    desk.engine(request, Started(request, 0, 0.0))
    desk.engine(request, Output(request, desk.ids("A"), "length"))
    assert names(desk.sent) == ["response.created", "x.cache", "response.in_progress", "response.completed"]
    ended = desk.sent[-1]["response"]
    assert ended["output"] == [] and ended["usage"]["output_tokens"] == 0
    desk.say(create(previous_response_id=ended["id"]))
    asked = desk.submits[desk.requests[-1]].prompt
    direct = Desk(desk.house)
    direct.say(create(instructions="Be kind."))
    assert asked == direct.submits[direct.requests[-1]].prompt


def test_a_warmed_turn_does_not_change_what_comes_after(desk: Desk) -> None:
    """With the message already there, the next turn adds to it; the earlier answer keeps its exact ids."""
    first, request = begun(desk, texts=["Hi"], instructions="Be kind.")
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    desk.say(create(generate=False, input="How much", previous_response_id=first))
    warm = desk.requests[-1]
    assert desk.submits[warm].prompt.startswith(desk.submits[request].prompt + text_bytes(desk.ids("Hi")))
    desk.engine(warm, Output(warm, desk.ids("A"), "length"))
    desk.say(create(input="is it?", previous_response_id=desk.sent[-1]["response"]["id"]))
    prompt = desk.submits[desk.requests[-1]].prompt
    assert prompt.startswith(desk.submits[request].prompt + text_bytes(desk.ids("Hi")))
    shown = desk.house.tokenizer.library.decode(memoryview(prompt).cast("I").tolist())
    assert "How much" in shown and shown.index("How much") < shown.index("is it?")


def test_what_is_stored_is_continued_anywhere_with_its_exact_ids(desk: Desk) -> None:
    response, request = begun(desk, texts=["Hi"], store=True)
    ended = desk.engine(request, Output(request, [desk.end_token], "stop"))
    assert ended[-1]["response"]["store"] is True
    turn = desk.store.load("local", response)
    assert turn is not None and turn.response.output[0].content[0].text == "Hi"
    later = Desk(desk.house)
    later.store = later.responses.store = desk.store
    later.say(create(input="And bread?", previous_response_id=response))
    past = desk.submits[request].prompt + text_bytes([*desk.ids("Hi"), desk.end_token])
    assert later.submits[later.requests[-1]].prompt.startswith(past)
    thief = Desk(desk.house)
    thief.responses.store = desk.store
    thief.session = thief.socket(identity=Identity("thief"))
    (refused,) = thief.say(create(previous_response_id=response))
    assert refused["error"]["code"] == "previous_response_not_found"


def test_what_could_not_be_stored_is_said(quiet_house: House) -> None:
    desk = Desk(quiet_house, later=True)
    desk.say(create(store=True))
    desk.prepare()
    (request,) = desk.requests
    before = desk.engine(request, Output(request, [desk.end_token], "stop"))
    assert before == []  # the end waits for the store
    (ended,) = desk.save(stored=False)
    assert ended["type"] == "response.completed" and ended["response"]["store"] is False


def test_who_has_to_wait_is_told(desk: Desk) -> None:
    desk.position = 3
    queued, created = desk.say(create())
    assert (queued["type"], queued["x_position"], queued["response"]["status"]) == ("response.queued", 3, "queued")
    assert created["type"] == "response.created" and numbers([queued, created]) == [0, 1]


@pytest.mark.parametrize(
    ("speaks_at", "now", "code"),
    [(None, 59.0, None), (None, 60.0, 4408), (1.0, 600.9, None), (1.0, 601.0, 4499), (3500.0, 3600.0, 4499)],
)
def test_deadlines_of_a_socket(desk: Desk, speaks_at: float | None, now: float, code: int | None) -> None:
    desk.session.opened(0.0)
    if speaks_at is not None:
        desk.session.receive(b'{"type": "x.ping"}', speaks_at, 0)
    desk.session.tick(now)
    assert (desk.closed.code if desk.closed else None) == code


def test_who_is_answered_is_neither_idle_nor_too_old_for_a_while(desk: Desk) -> None:
    desk.session.opened(0.0)
    begun(desk, texts=["A"])
    desk.session.tick(3600.0)
    assert desk.closed is None
    desk.session.tick(3720.0)
    assert desk.closed is not None and desk.closed.code == 4499


def test_a_server_that_goes_down_takes_nothing_new(desk: Desk) -> None:
    _, request = begun(desk, texts=["A"], stream_id="a")
    desk.responses.draining = True
    (refused,) = desk.say(create(stream_id="b"))
    assert (refused["status"], refused["error"]["code"]) == (503, "server_draining")
    desk.session.tick(desk.now)
    assert desk.closed is None
    assert desk.engine(request, Output(request, [desk.end_token], "stop"))[-1]["type"] == "response.completed"
    desk.session.tick(desk.now)
    assert desk.closed is not None and desk.closed.code == 1012


def test_subscriptions(desk: Desk) -> None:
    desk.say({"type": "x.subscribe", "topics": ["stats", "batch"], "max_hz": 5})
    assert desk.watches == [Watch("stats", 5.0), Watch("batch", 5.0)]
    assert names(desk.sends(lambda: desk.session.live(Batch([])))) == ["x.batch"]
    desk.backlog.bytes = 1 << 19
    assert desk.sends(lambda: desk.session.live(Batch([]))) == []
    desk.say({"type": "x.unsubscribe", "topics": ["stats", "tree"]})
    desk.close()
    assert desk.watches[2:] == [Watch("stats", 0.0), Watch("batch", 0.0)]


def test_msgpack_has_the_same_fields(desk: Desk) -> None:
    session = desk.socket(codec=MSGPACK)
    packed = msgspec.msgpack.encode({"type": "response.create", "input": "Hello", "stream_id": "m"})
    (created,) = desk.say(packed, session)
    assert created["type"] == "response.created" and created["stream_id"] == "m"
    deep = b"\x82\xa4type\xa6x.ping\xa1z" + b"\x91" * 100_000
    for bad in (b"", b"\xc1", "text", packed[:-3], deep):
        (refused,) = desk.say(bad, session)
        assert refused["error"]["code"] == "invalid_json"
    (refused,) = desk.say(msgspec.msgpack.encode({"type": "x.subscribe", "topics": ["stats"], "max_hz": nan}), session)
    assert refused["error"]["param"] == "max_hz"
    (refused,) = desk.say(msgspec.msgpack.encode(create(temperature=nan)), session)
    assert refused["error"]["param"] in ("temperature", "stream_id")
