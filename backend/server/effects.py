"""What the protocol's core asks its shells to do. Data only.

``Prepare``, ``Generate``, ``Abandon`` and ``Save`` belong to a response and go on without a socket; ``Send``, ``Close``
and ``Watch`` belong to one.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from backend.engine.messages import Submit
from backend.server.conversations import StoredTurn
from backend.server.events import ServerEvent
from backend.server.live_events import Topic
from backend.text.conversation import Prompt


class Prepare(msgspec.Struct, frozen=True):
    """Run ``work``, hand its result or error to ``prepared``; off the event loop when it ``blocks`` or takes long."""

    key: int
    work: Callable[[], Prompt]
    size_chars: int
    blocks: bool = False


class Generate(msgspec.Struct, frozen=True):
    """Hand ``submit`` to the engine; what comes of it goes to ``engine_event`` under ``submit.request``."""

    submit: Submit


class Abandon(msgspec.Struct, frozen=True):
    """Cancel the engine's request ``key``."""

    key: int


class Save(msgspec.Struct, frozen=True):
    """Keep ``turn``, then call ``saved``."""

    key: int
    tenant: str
    response_id: str
    turn: StoredTurn


class Send(msgspec.Struct, frozen=True):
    """Send this event."""

    event: ServerEvent


class Close(msgspec.Struct, frozen=True):
    """Close the socket."""

    code: int
    reason: str


class Watch(msgspec.Struct, frozen=True):
    """From now on hand the events of ``topic`` to ``live``, at most ``hz`` a second; 0: no more."""

    topic: Topic
    hz: float


RunEffect: TypeAlias = Prepare | Generate | Abandon | Save
SocketEffect: TypeAlias = Send | Close | Watch
