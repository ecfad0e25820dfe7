"""What a session asks its shell to do. Data only."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from backend.engine.messages import Submit
from backend.server.events import ServerEvent
from backend.text.conversation import Prompt


class Send(msgspec.Struct, frozen=True):
    """Send this event."""

    event: ServerEvent


class Prepare(msgspec.Struct, frozen=True):
    """Run ``work``, off the event loop when ``size_chars`` is large, and hand its result or error to ``prepared``."""

    key: int
    work: Callable[[], Prompt]
    size_chars: int


class Generate(msgspec.Struct, frozen=True):
    """Hand ``submit`` to the engine; what comes of it goes to ``engine_event`` under ``submit.request``."""

    submit: Submit


class Abandon(msgspec.Struct, frozen=True):
    """Cancel the engine's request ``key``."""

    key: int


class Close(msgspec.Struct, frozen=True):
    """Close the socket."""

    code: int
    reason: str


Effect: TypeAlias = Send | Prepare | Generate | Abandon | Close
