"""Any clients, any engine, any weather: sockets come, stall, go and come back, and no response's events suffer from it.

A Hypothesis state machine over the core, without a network. Promises: numbers without gaps, the same event under the
same number whoever reads it, the text of the end is the deltas' text, nothing on a socket that stalls, nothing of
another tenant, and nothing left in the engine when everybody is gone.
"""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from backend.engine.messages import Output, Started
from backend.errors import BanyanError, EngineError
from backend.server.conversations import MemoryStore
from backend.server.effects import Abandon, Close, Generate, Prepare, RunEffect, Save, Send, SocketEffect
from backend.server.identity import Identity
from backend.server.responses import Responses
from backend.server.session import Session
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import make_house

Event = dict[str, Any]
ENDS = ("response.completed", "response.incomplete", "response.failed")
FULL = (1 << 19) + 1


class Wire:
    """One socket: what was sent on it, and how much of that waits."""

    def __init__(self, responses: Responses, tenant: str, extensions: bool, now: float) -> None:
        self.tenant = tenant
        self.sent: list[Event] = []
        self.backlog = SimpleNamespace(bytes=0)
        self.closed: Close | None = None
        self.sent_while_full: list[Event] = []
        self.session = Session(
            responses, self.act, backlog=self.backlog, identity=Identity(tenant), extensions=extensions
        )
        self.session.opened(now)

    def act(self, effect: SocketEffect) -> None:
        if isinstance(effect, Send):
            event = json.loads(msgspec.json.encode(effect.event))
            if event["type"] == "x.cache":  # it names nothing but its lane
                lanes = self.session._lanes.values()
                (event["of"],) = (lane.id for lane in lanes if lane.lane == event.get("stream_id"))
            assert self.closed is None, "something was sent after the socket was closed"
            self.sent.append(event)
            if self.backlog.bytes >= FULL and "sequence_number" in event:
                self.sent_while_full.append(event)
        elif isinstance(effect, Close):
            self.closed = effect


class Protocol(RuleBasedStateMachine):
    """The rules draw a socket, a request or a response by number; where there is none, nothing happens."""

    folder: Path
    tokenizer: TextTokenizer

    def __init__(self) -> None:
        super().__init__()
        house = make_house(self.folder, self.tokenizer)
        ids = itertools.count()
        self.store = MemoryStore()
        self.responses = Responses(
            house.service.model,
            self.store,
            self.act,
            new_request=house.engine.next_request_id,
            new_id=lambda: f"{next(ids):032d}",
            position=lambda: next(ids) % 3,
        )
        self.now = 0.0
        self.later: list[Prepare | Save] = []
        self.requests: list[int] = []
        self.begun: set[int] = set()
        self.done: set[int] = set()  # ended by the engine, or abandoned
        self.wires: list[Wire] = []
        self.gone: list[Wire] = []
        self.resumed_at: set[tuple[str, int]] = set()
        self.connect("one", True)
        self.connect("two", True)

    def act(self, effect: RunEffect) -> None:
        match effect:
            case Prepare() | Save():
                self.later.append(effect)
            case Generate(submit):
                self.requests.append(submit.request)
            case Abandon(key):
                self.done.add(key)

    # ---- clients -----------------------------------------------------------------------------

    @rule(tenant=st.sampled_from(["one", "one", "two"]), extensions=st.sampled_from([True, True, False]))
    def connect(self, tenant: str, extensions: bool) -> None:
        if len(self.wires) < 6:
            self.wires.append(Wire(self.responses, tenant, extensions, self.now))

    @rule(
        wire=st.integers(0, 5),
        lane=st.sampled_from(["a", "b", None]),
        extra=st.sampled_from(
            [{}, {}, {"stop": "cost"}, {"store": True}, {"generate": False}, {"previous": True}, {"input": []}]
        ),
        at_once=st.sampled_from([True, True, True, False]),
    )
    def create(self, wire: int, lane: str | None, extra: dict[str, Any], at_once: bool) -> None:
        event = {"type": "response.create", "input": "Hello", "stream_id": lane, **extra}
        if event.pop("previous", False):
            ended = [e["response"]["id"] for w in self.wires for e in w.sent if e["type"] in ENDS]
            event["previous_response_id"] = ended[-1] if ended else "resp_0"
        self.say(wire, event)
        if at_once:
            self.settle()

    @rule()
    def settle(self) -> None:
        """The shells and the engine have done what they could: all is prepared, saved and running."""
        while self.later:
            self.carry_out(True)
        for request in set(self.requests) - self.begun - self.done:
            self.begun.add(request)
            self.responses.engine_event(request, Started(request, 0, 0.0), self.now)

    @rule(wire=st.integers(0, 5), which=st.integers(0, 9), by_lane=st.booleans())
    def cancel(self, wire: int, which: int, by_lane: bool) -> None:
        known = self.known()
        named = {"stream_id": "a"} if by_lane or not known else {"response_id": known[which % len(known)]}
        self.say(wire, {"type": "response.cancel", **named})

    @rule(wire=st.integers(0, 5), which=st.integers(0, 9), after=st.integers(-2, 12))
    def resume(self, wire: int, which: int, after: int) -> None:
        if known := self.known():
            self.say(wire, {"type": "x.resume", "response_id": known[which % len(known)], "after": after})

    @rule(wire=st.integers(0, 5), raw=st.one_of(st.binary(max_size=8), st.just(b'{"type": "x.ping"}'), st.just(b"[]")))
    def garbage(self, wire: int, raw: bytes) -> None:
        chosen = self.wire(wire)
        chosen.session.receive(raw, self.now, 0)
        self.sweep()

    @rule(wire=st.integers(0, 5), grace=st.sampled_from([True, True, False]))
    def lose(self, wire: int, grace: bool) -> None:
        if len(self.wires) > 1:
            chosen = self.wires.pop(wire % len(self.wires))
            chosen.session.closed(self.now, grace=grace)
            self.gone.append(chosen)

    @rule(wire=st.integers(0, 5))
    def stall(self, wire: int) -> None:
        self.wire(wire).backlog.bytes = FULL

    @rule(wire=st.integers(0, 5))
    def relieve(self, wire: int) -> None:
        chosen = self.wire(wire)
        chosen.backlog.bytes = 0
        chosen.session.relieved()

    @rule(seconds=st.sampled_from([1.0, 20.0, 95.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.responses.tick(self.now)
        for wire in list(self.wires):
            wire.session.tick(self.now)
        self.sweep()

    # ---- shells and engine -------------------------------------------------------------------

    @precondition(lambda self: self.later)
    @rule(well=st.sampled_from([True, True, True, False]))
    def carry_out(self, well: bool) -> None:
        effect = self.later.pop(0)
        if isinstance(effect, Save):
            self.responses.saved(effect.key, well, self.now)
            return
        try:
            result: Any = effect.work() if well else EngineError("no prompt")
        except BanyanError as error:
            result = error
        self.responses.prepared(effect.key, result, self.now)

    @precondition(lambda self: self.requests)
    @rule(
        which=st.integers(0, 9),
        kind=st.sampled_from(["", "", "", "", "stop", "length", "deadline", "error", "gone"]),
        texts=st.lists(st.sampled_from([" croissant", " costs", "🙂", ""]), min_size=1, max_size=4),
    )
    def engine(self, which: int, kind: str, texts: list[str]) -> None:
        for text in texts[:-1]:
            self.one_event(which, "", text)
        self.one_event(which, kind, texts[-1])

    def one_event(self, which: int, kind: str, text: str) -> None:
        request = self.requests[-1 - which % min(len(self.requests), 4)]
        if request in self.done and kind != "gone":  # at most what was on its way
            kind = ""
        if kind == "gone":
            self.done.add(request)
            self.responses.engine_gone(request, EngineError("gone"), self.now)
        elif request not in self.begun and not kind:
            self.begun.add(request)
            self.responses.engine_event(request, Started(request, 0, 0.0), self.now)
        else:
            if kind:
                self.done.add(request)
            tokens = self.tokenizer.encode_plain(text) if text and request in self.begun else []
            self.responses.engine_event(request, Output(request, tokens, kind), self.now)

    # ---- promises ----------------------------------------------------------------------------

    @invariant()
    def nothing_on_a_socket_that_stalls(self) -> None:
        assert not any(wire.sent_while_full for wire in self.every_wire())

    @invariant()
    def numbers_follow_one_another(self) -> None:
        by_number: dict[tuple[str, int], Event] = {}
        text: dict[str, dict[int, str]] = {}
        tenants: dict[str, str] = {}
        for wire in self.every_wire():
            last: dict[str, int] = {}
            for event in wire.sent:
                if "sequence_number" not in event:
                    continue
                response, number = self.owner_of(event), event["sequence_number"]
                assert tenants.setdefault(response, wire.tenant) == wire.tenant
                assert by_number.setdefault((response, number), event) == event
                expected = last.get(response)
                assert expected is None or number == expected + 1 or (response, number) in self.resumed_at
                last[response] = number
                if event["type"] == "response.output_text.delta":
                    text.setdefault(response, {})[number] = event["delta"]
        for response, number in by_number:
            assert number == 0 or (response, number - 1) in by_number
        for (response, _), event in by_number.items():
            if event["type"] in ENDS:
                shown = "".join(part["text"] for item in event["response"]["output"] for part in item["content"])
                assert shown == "".join(delta for _, delta in sorted(text.get(response, {}).items()))

    def teardown(self) -> None:
        """Everybody goes and nobody comes back: nothing is left."""
        for wire in self.wires:
            wire.session.closed(self.now)
        while self.later:
            self.carry_out(True)
        self.now += 31.0
        self.responses.tick(self.now)
        while self.later:
            self.carry_out(True)
        assert len(self.responses) == 0
        assert set(self.requests) <= self.done
        self.now += 100.0
        self.responses.tick(self.now)
        assert self.responses.kept_bytes == 0
        self.numbers_follow_one_another()

    # ---- inside ------------------------------------------------------------------------------

    def say(self, wire: int, event: Event) -> None:
        chosen = self.wire(wire)
        before = len(chosen.sent)
        chosen.session.receive(json.dumps(event), self.now, 1_700_000_000)
        if event["type"] == "x.resume":
            new = [e for e in chosen.sent[before:] if "sequence_number" in e]
            refused = any(e["type"] == "error" for e in chosen.sent[before:])
            if not refused:  # a stalled socket gets it later
                self.resumed_at.add((event["response_id"], event["after"] + 1))
            assert not new or new[0]["sequence_number"] == max(event["after"], -1) + 1 or refused
        self.sweep()

    def sweep(self) -> None:
        """Shells of sockets that the core closed are gone."""
        for wire in [wire for wire in self.wires if wire.closed is not None]:
            self.wires.remove(wire)
            wire.session.closed(self.now)
            self.gone.append(wire)
        if not self.wires:
            self.connect("one", True)

    def wire(self, index: int) -> Wire:
        return self.wires[index % len(self.wires)]

    def every_wire(self) -> list[Wire]:
        return [*self.gone, *self.wires]

    def known(self) -> list[str]:
        """Ids that some client has seen, in order."""
        seen = [e["response"]["id"] for w in self.every_wire() for e in w.sent if e["type"] == "response.created"]
        return list(dict.fromkeys(seen))

    @staticmethod
    def owner_of(event: Event) -> str:
        """The response of an event: deltas name only their item, whose id follows the response's."""
        if "response" in event:
            return str(event["response"]["id"])
        if "of" in event:
            return str(event["of"])
        item = event.get("item_id") or event["item"]["id"]
        return f"resp_{int(item.removeprefix('msg_')) - 1:032d}"


def test_protocol(folder: Path, tokenizer: TextTokenizer) -> None:
    class Machine(Protocol):
        pass

    Machine.folder, Machine.tokenizer = folder, tokenizer
    run_state_machine_as_test(Machine, settings=settings(max_examples=80, stateful_step_count=50, deadline=None))
