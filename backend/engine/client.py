"""How the server sees an engine: one small interface. The server cannot tell a process from a thread or a cluster."""

import math
from collections.abc import AsyncIterator
from typing import Protocol

from backend.engine.event_stream import Hear
from backend.engine.messages import EngineInfo, Lane, Load, Output, Report, SetTenant, Snapshot, Started, Submit
from backend.errors import RequestError


class Generation(Protocol):
    """One request in the engine. Iterate or listen, once: ``Started`` first (not when it fails before), then
    ``Output``s.

    The last ``Output`` has a non-empty ``finish`` (``stop``, ``length``, ``deadline``, ``error``) unless ``cancel`` was
    called; iteration ends after it, or after ``cancel``. The code of an ``error`` is one of ``RequestRejected``'s (in
    ``scheduler.request``) when the request was refused, and ``engine_error`` when it failed or the engine died.
    """

    def __aiter__(self) -> AsyncIterator[Started | Output]: ...

    def listen(self, hear: Hear) -> None:
        """Have ``hear``, which must not raise, called with each event as it comes, and with None when no other comes;
        not after ``cancel``."""
        ...

    def cancel(self) -> None:
        """Free everything, at the latest when the steps in flight are over; idempotent; also fine after the end."""
        ...


class EngineClient(Protocol):
    """An engine that is ready."""

    @property
    def info(self) -> EngineInfo:
        """What it said when it was ready."""
        ...

    @property
    def load(self) -> Load:
        """Its state after the last step."""
        ...

    @property
    def step_ms(self) -> float:
        """How long that took; 0: not known."""
        ...

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
        """State, and with ``check`` the first broken invariant. Raises ``EngineError`` when the engine is gone."""
        ...

    async def publish_prompt(self, name: str, prompt: bytes, pin: str = "soft") -> None:
        """Share a system prompt (little-endian uint32 ids) between all tenants, and have it computed now; returns
        before it is. ``pin``: ``soft`` (evicted last), ``hard`` (never evicted) or empty.

        Raises ``EngineError``: with the engine's words, code ``prompt_not_published``, when that cannot be (less than a
        page, beyond the budget of pins, a name that is taken), or because the engine is gone.
        """
        ...

    def withdraw_prompt(self, name: str, prompt: bytes) -> None:
        """The prompt is public no longer. Unknown ones are ignored. Raises ``EngineError`` when the engine is gone."""
        ...

    def set_tenant(self, tenant: str, weight: float = 1.0, page_limit: int = 0, page_watermark: int = 0) -> None:
        """Weight in the order of service, and most KV pages: see ``SetTenant``. Raises ``RequestError`` naming the
        value that is wrong, ``EngineError`` when the engine is gone."""
        ...

    async def look(self, tenant: str, everything: bool = False, limit: int = 200) -> Snapshot:
        """At most ``limit`` nodes of the cache: what ``tenant`` may see, or with ``everything`` an administrator.
        Raises ``EngineError`` when the engine is gone."""
        ...

    async def lanes(self, tenant: str, everything: bool = False, limit: int = 256) -> list[Lane]:
        """At most ``limit`` open requests, of ``tenant`` or all. Raises ``EngineError`` when the engine is gone."""
        ...

    async def close(self) -> None:
        """End the engine and wait until it is gone."""
        ...


def tenant_settings(tenant: str, weight: float, page_limit: int, page_watermark: int) -> SetTenant:
    """The command for ``EngineClient.set_tenant``. Raises ``RequestError`` naming the value that is wrong: the engine
    would silently take the defaults."""
    if tenant.startswith("\0"):  # such names are the cache's own
        raise RequestError(f"{tenant!r} is not a tenant's name", param="tenant")
    if not (math.isfinite(weight) and weight > 0):
        raise RequestError(f"the weight of a tenant is a finite number above 0, not {weight}", param="weight")
    if page_limit < 0:
        raise RequestError(f"a quota of {page_limit} KV pages is less than none", param="page_limit")
    if not 0 <= page_watermark <= page_limit:
        raise RequestError(
            f"the watermark of a quota of {page_limit} KV pages cannot be at {page_watermark}", param="page_watermark"
        )
    return SetTenant(tenant, weight, page_limit, page_watermark)
