"""The protocol without a network: any message, any engine, and the promises of a response's events."""

import itertools
import json
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.messages import Output, Started
from backend.errors import EngineError
from backend.server.codec import JSON, MSGPACK, Codec
from backend.server.conversations import MemoryStore
from backend.server.effects import (
    Abandon,
    Close,
    Generate,
    Prepare,
    RunEffect,
    Save,
    Send,
    SocketEffect,
    Watch,
)
from backend.server.identity import LOCAL, Identity
from backend.server.limits import Limits
from backend.server.live_events import Batch
from backend.server.responses import Responses
from backend.server.session import Session
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


class Desk:
    """Stands in for the shells: carries out prepares and saves at once (or later), and notes the rest."""

    def __init__(self, house: House, *, extensions: bool = True, later: bool = False) -> None:
        self.house = house
        ids = itertools.count()
        self.backlog = 0
        self.position = 0
        self.store = MemoryStore()
        self.responses = Responses(
            house.service.model,
            self.store,
            self.act,
            new_request=house.engine.next_request_id,
            new_id=lambda: f"{next(ids):032d}",
            position=lambda: self.position,
        )
        self.later = later
        self.sent: list[dict[str, Any]] = []
        self.requests: list[int] = []
        self.submits: dict[int, Any] = {}
        self.preparing: list[Prepare] = []
        self.saving: list[Save] = []
        self.abandoned: list[int] = []
        self.watches: list[Watch] = []
        self.closed: Close | None = None
        self.now = 0.0
        self.session = self.socket(extensions=extensions)

    def socket(self, *, extensions: bool = True, identity: Identity = LOCAL, codec: Codec = JSON) -> Session:
        """One more socket; what it sends goes to ``sent`` as well."""
        return Session(
            self.responses,
            self.act,
            backlog=lambda: self.backlog,
            identity=identity,
            extensions=extensions,
            codec=codec,
        )

    def act(self, effect: RunEffect | SocketEffect) -> None:
        """Carry out."""
        if isinstance(effect, Send):
            self.sent.append(json.loads(msgspec.json.encode(effect.event)))
        elif isinstance(effect, Prepare):
            self.preparing.append(effect)
            if not self.later:
                self.prepare()
        elif isinstance(effect, Generate):
            self.requests.append(effect.submit.request)
            self.submits[effect.submit.request] = effect.submit
        elif isinstance(effect, Abandon):
            self.abandoned.append(effect.key)
        elif isinstance(effect, Save):
            self.saving.append(effect)
            if not self.later:
                self.save()
        elif isinstance(effect, Watch):
            self.watches.append(effect)
        elif isinstance(effect, Close):
            self.closed = effect

    def sends(self, action: Callable[[], None]) -> list[dict[str, Any]]:
        """What is sent while ``action`` runs."""
        before = len(self.sent)
        action()
        return self.sent[before:]

    def prepare(self) -> list[dict[str, Any]]:
        effect = self.preparing.pop(0)
        try:
            result: Any = effect.work()
        except Exception as error:
            result = error
        return self.sends(lambda: self.responses.prepared(effect.key, result, self.now))

    def save(self, stored: bool = True) -> list[dict[str, Any]]:
        effect = self.saving.pop(0)
        if stored:
            self.store.save(effect.tenant, effect.response_id, effect.turn)
        return self.sends(lambda: self.responses.saved(effect.key, stored, self.now))

    def say(self, event: object, session: Session | None = None) -> list[dict[str, Any]]:
        self.now += 1
        raw = event if isinstance(event, str | bytes) else json.dumps(event)
        return self.sends(lambda: (session or self.session).receive(raw, self.now, 1_700_000_000))

    def engine(self, request: int, event: Started | Output) -> list[dict[str, Any]]:
        self.now += 1
        return self.sends(lambda: self.responses.engine_event(request, event, self.now))

    def gone(self, request: int, words: str) -> list[dict[str, Any]]:
        return self.sends(lambda: self.responses.engine_gone(request, EngineError(words), self.now))

    def close(self, session: Session | None = None, *, grace: bool = True) -> None:
        (session or self.session).closed(self.now, grace=grace)

    def ids(self, text: str) -> list[int]:
        return self.house.tokenizer.encode_plain(text)

    @property
    def end_token(self) -> int:
        return self.house.tokenizer.library.token_to_id("<|im_end|>")


@pytest.fixture
def desk(quiet_house: House) -> Desk:
    return Desk(quiet_house)


def create(**fields: object) -> dict[str, object]:
    return {"type": "response.create", "input": "Hello", **fields}


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


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


def text_bytes(ids: list[int]) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in ids)


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


# ---- coming back --------------------------------------------------------------------------------------------------


def begun(desk: Desk, *, texts: list[str], session: Session | None = None, **fields: object) -> tuple[str, int]:
    """A response that has said ``texts``; its id and its request."""
    (created,) = desk.say(create(**fields), session)
    request = desk.requests[-1]
    desk.engine(request, Started(request, 0, 0.0))
    for text in texts:
        desk.engine(request, Output(request, desk.ids(text)))
    return created["response"]["id"], request


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events if "sequence_number" in event]


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def test_resume_goes_on_where_it_was_left(desk: Desk) -> None:
    response, request = begun(desk, texts=["A", " croissant"], stream_id="a")
    seen = list(desk.sent)
    desk.close()
    for text in (" costs", " three", " euros"):
        assert desk.engine(request, Output(request, desk.ids(text))) == []
    assert desk.abandoned == []
    other = desk.socket()
    replayed = desk.say({"type": "x.resume", "response_id": response, "after": numbers(seen)[-3]}, other)
    assert numbers(replayed)[0] == numbers(seen)[-3] + 1
    live = desk.engine(request, Output(request, [desk.end_token], "stop"))
    both = [*seen, *replayed[2:], *live]
    assert replayed[:2] == seen[-2:]
    assert numbers(both) == list(range(len(both)))
    assert said(both) == "A croissant costs three euros" and live[-1]["type"] == "response.completed"
    assert {event["stream_id"] for event in both} == {"a"}
    # what nobody had taken is one delta
    assert [event["delta"] for event in replayed[2:]] == [" costs three euros"]


def test_a_response_that_has_ended_can_be_read_again_for_a_while(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.close()
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    end = desk.now
    first = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert numbers(first) == list(range(len(first))) and first[-1]["type"] == "response.completed"
    assert desk.say({"type": "x.resume", "response_id": response}, desk.socket()) == first
    desk.responses.tick(end + 89)
    late = desk.socket()
    assert desk.say({"type": "x.resume", "response_id": response, "after": len(first) - 1}, late) == []
    assert not late.busy
    desk.responses.tick(end + 90)
    (gone,) = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert gone["error"]["code"] == "response_not_found"


def test_nobody_comes_back(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.close()
    desk.responses.tick(desk.now + 29)
    assert desk.abandoned == []
    desk.responses.tick(desk.now + 30)
    assert desk.abandoned == [request] and len(desk.responses) == 0
    ended = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert ended[-1]["response"]["incomplete_details"] == {"reason": "cancelled"}


def test_without_our_subprotocol_it_ends_with_the_socket(quiet_house: House) -> None:
    desk = Desk(quiet_house, extensions=False)
    response, request = begun(desk, texts=["A"])
    desk.close()
    assert desk.abandoned == [request] and len(desk.responses) == 0
    (refused,) = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert refused["error"]["code"] == "response_not_found"


def test_a_socket_that_is_only_half_gone_loses_its_response(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"], stream_id="a")
    other = desk.socket()
    replayed = desk.say({"type": "x.resume", "response_id": response}, other)
    live = desk.engine(request, Output(request, desk.ids(" croissant")))
    assert said(replayed + live) == "A croissant" and len(live) == 1  # once, not on both
    desk.close()  # of the first socket
    assert desk.abandoned == []
    assert names(desk.say(create(stream_id="a"))) == []
    assert desk.say({"type": "response.cancel", "response_id": response}, other)[-1]["type"] == "response.incomplete"


def test_others_can_neither_resume_nor_cancel_nor_continue_it(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    thief = desk.socket(identity=Identity("thief", "k", frozenset({"chat"})))
    for event, code in (
        ({"type": "x.resume", "response_id": response}, "response_not_found"),
        ({"type": "response.cancel", "response_id": response}, "response_not_found"),
        (create(previous_response_id=response), "previous_response_not_found"),
    ):
        (refused,) = desk.say(event, thief)
        assert refused["error"]["code"] == code
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    (refused,) = desk.say(create(previous_response_id=response), thief)
    assert refused["error"]["code"] == "previous_response_not_found"
    for wrong in (response[:-1], response.upper(), response + "0"):
        assert desk.say({"type": "x.resume", "response_id": wrong})[0]["error"]["code"] == "response_not_found"
    assert desk.abandoned == []


def test_a_gap_is_said(folder: Path, tokenizer: TextTokenizer) -> None:
    desk = Desk(make_house(folder, tokenizer, Limits(ring_bytes=2000)))
    response, request = begun(desk, texts=["A"] * 40)
    (gap,) = desk.say({"type": "x.resume", "response_id": response, "after": 3}, desk.socket())
    assert (gap["error"]["code"], gap["error"]["param"]) == ("resume_gap", "after")
    (later,) = desk.say({"type": "x.resume", "response_id": response, "after": 500}, desk.socket())
    assert later["error"]["param"] == "after"
    last = numbers(desk.sent)[-1]
    assert numbers(desk.say({"type": "x.resume", "response_id": response, "after": last - 5})) == [
        last - 4 + i for i in range(5)
    ]
    assert desk.responses.find("local", response).record.bytes <= 2000  # type: ignore[union-attr]
    assert desk.engine(request, Output(request, [desk.end_token], "stop"))[-1]["type"] == "response.completed"


def test_what_is_kept_of_all_is_bounded(folder: Path, tokenizer: TextTokenizer) -> None:
    desk = Desk(make_house(folder, tokenizer, Limits(rings_bytes=20_000)))
    ids = []
    for _ in range(20):
        response, request = begun(desk, texts=["A"])
        desk.engine(request, Output(request, [desk.end_token], "stop"))
        ids.append(response)
    assert desk.responses.kept_bytes <= 20_000
    assert desk.responses.find("local", ids[-1]) is not None and desk.responses.find("local", ids[0]) is None


# ---- slow readers -------------------------------------------------------------------------------------------------


def test_above_half_of_the_budget_deltas_are_merged_and_numbers_have_no_gaps(desk: Desk) -> None:
    _, request = begun(desk, texts=["A"])
    desk.backlog = (1 << 19) + 1
    for text in (" croissant", " costs", " three"):
        assert desk.engine(request, Output(request, desk.ids(text))) == []
    desk.backlog = 0
    (merged,) = desk.sends(desk.session.relieved)
    assert merged["delta"] == " croissant costs three"
    desk.engine(request, Output(request, desk.ids(" euros")))
    assert numbers(desk.sent) == list(range(len(desk.sent))) and said(desk.sent) == "A croissant costs three euros"
    assert desk.closed is None


def test_above_all_of_it_the_socket_closes_and_the_answer_goes_on(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.backlog = (1 << 20) - 100
    for _ in range(200):
        desk.engine(request, Output(request, desk.ids("A")))
    assert desk.closed is not None and desk.closed.code == 4490
    desk.close()
    desk.backlog = 0
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    assert desk.abandoned == []
    other = desk.socket()
    rest = desk.say({"type": "x.resume", "response_id": response, "after": numbers(desk.sent)[-1]}, other)
    assert said(rest) == "A" * 200 and rest[-1]["type"] == "response.completed"


# ---- warming, storing ---------------------------------------------------------------------------------------------


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


# ---- time ---------------------------------------------------------------------------------------------------------


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
    desk.backlog = 1 << 19
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


# ---- anything at all ----------------------------------------------------------------------------------------------

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
