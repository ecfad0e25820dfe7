"""How the server sees an engine: one small interface. The server cannot tell a process from a thread or a cluster."""

from collections.abc import AsyncIterator
from typing import Protocol

from backend.engine.messages import EngineInfo, Load, Output, Report, Started, Submit


class Generation(Protocol):
    """One request in the engine. Iterate once: ``Started`` first (not when it fails before), then ``Output``s.

    The last ``Output`` has a non-empty ``finish`` (``stop``, ``length``, ``deadline``, ``error``) unless ``cancel`` was
    called; iteration ends after it, or after ``cancel``. When the engine dies, iteration ends with an ``error`` output,
    code ``engine_error``.
    """

    def __aiter__(self) -> AsyncIterator[Started | Output]: ...

    def cancel(self) -> None:
        """Free everything at once; idempotent; also fine after the end."""
        ...


class EngineClient(Protocol):
    """An engine that is ready. ``load`` is its state after the last step."""

    info: EngineInfo
    load: Load

    @property
    def alive(self) -> bool:
        """False once the engine is gone."""
        ...

    def next_request_id(self) -> int:
        """An id for ``Submit.request``, unique within this client."""
        ...

    def generate(self, submit: Submit) -> Generation:
        """Hand a request over. Does not block; raises ``EngineError`` when the engine is gone."""
        ...

    async def inspect(self, check: bool = False) -> Report:
        """State, and with ``check`` the first broken invariant."""
        ...

    async def close(self) -> None:
        """End the engine and wait until it is gone."""
        ...
