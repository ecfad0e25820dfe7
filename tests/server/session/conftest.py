"""The protocol's core between a client and an engine that tests play."""

import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from backend.engine.messages import Output, Started
from backend.errors import EngineError
from backend.server.codec import JSON, Codec
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
from backend.server.responses import Responses
from backend.server.session import Session
from tests.server.conftest import House

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


class Desk:
    """Stands in for the shells: carries out prepares and saves at once (or later), and notes the rest."""

    def __init__(self, house: House, *, extensions: bool = True, later: bool = False) -> None:
        self.house = house
        ids = itertools.count()
        self.backlog = SimpleNamespace(bytes=0)
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
            backlog=self.backlog,
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


def text_bytes(ids: list[int]) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in ids)
