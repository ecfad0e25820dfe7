"""What stands between a checked request and the engine: limits before, usage after.

Knows limiter, prompts and the writer of usage. Knows no protocol: ``ChatModel.submit`` asks to ``admit``, the service
``begin``s. Fails closed: who was not admitted does not begin, and an identity that is none any more is not admitted.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from backend.errors import BanyanError
from backend.server.identity import Identity
from backend.server.tenant_prompts import TenantPrompts
from backend.tenants.directory import Directory
from backend.tenants.limiter import Limiter, Running
from backend.tenants.usage_store import UsageRecord
from backend.text.conversation import Prompt

_MOST_ADMITTED = 10_000  # of those that have not begun; beyond, the oldest are forgotten: nobody will come for them


class Gate:
    """``record``: takes a usage record, without waiting. ``clock`` never jumps; ``wall`` is Unix time."""

    def __init__(
        self,
        directory: Directory,
        limiter: Limiter,
        prompts: TenantPrompts,
        record: Callable[[UsageRecord], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limiter = limiter
        self.clock = clock
        self.wall = wall
        self.record = record
        self._directory = directory
        self._prompts = prompts
        self._admitted: OrderedDict[int, tuple[Identity, str, int]] = OrderedDict()

    def admit(self, identity: Identity, request: int, prompt: Prompt) -> None:
        """Check a request and pay for its prompt. Raises ``BanyanError``: 401, 403 (a locked prompt), 413, 429."""
        if not self._directory.still(identity):
            raise BanyanError("the key was revoked or has expired", code="invalid_api_key", status=401)
        found = self._prompts.recognized(identity.tenant, prompt.messages)
        self._prompts.refuse_own(identity.tenant, prompt.messages, found)
        self.limiter.admit(identity.tenant, len(prompt.ids), self.clock(), self.wall())
        name = ""
        if found is not None:
            name = f"{found.id}@{found.version}"
            name = name if found.tenant == identity.tenant else f"{found.tenant}/{name}"
        self._admitted[request] = (identity, name, len(prompt.ids))
        if len(self._admitted) > _MOST_ADMITTED:
            self._admitted.popitem(last=False)

    def begin(self, request: int) -> "Meter":
        """The engine is about to get an admitted request. Raises ``BanyanError``."""
        admitted = self._admitted.pop(request, None)
        if admitted is None:
            raise BanyanError("a request was not admitted", code="internal_error", status=500)
        identity, prompt, tokens = admitted
        try:
            running = self.limiter.begin(identity.tenant)
        except BanyanError:  # one of several answers to a request too many
            self.limiter.settle(identity.tenant, tokens, 0, self.clock())
            raise
        return Meter(self, running, identity, prompt, tokens)

    def headers(self, tenant: str) -> Mapping[str, str]:
        """``x-ratelimit-*``."""
        return self.limiter.headers(tenant, self.clock(), self.wall())


class Meter:
    """What one request used. ``ended`` may be called again."""

    def __init__(self, gate: Gate, running: Running, identity: Identity, prompt: str, prompt_tokens: int) -> None:
        self._gate = gate
        self._running: Running | None = running
        self._identity = identity
        self._prompt = prompt
        self._prompt_tokens = prompt_tokens
        self._cached: int | None = None

    def started(self, cached_tokens: int) -> None:
        """The engine runs it."""
        if self._running is not None:
            self._cached = cached_tokens
            self._running.started(cached_tokens, self._gate.clock())

    def ended(self, output_tokens: int, ttft_ms: float | None, reason: str) -> None:
        """It is over, however it ended: that is what is recorded. What never ran has used nothing."""
        running, self._running = self._running, None
        if running is None:
            return
        cached, now, wall = self._cached or 0, self._gate.clock(), self._gate.wall()
        charged = running.end(self._prompt_tokens, cached, output_tokens, now, wall)
        ran = self._cached is not None
        self._gate.record(
            UsageRecord(
                id=secrets.token_hex(16),
                at=int(wall),
                tenant=self._identity.tenant,
                key_id=self._identity.key_id,
                prompt=self._prompt,
                input_tokens=self._prompt_tokens if ran else 0,
                cached_tokens=cached,
                output_tokens=output_tokens,
                charged_tokens=charged,
                ttft_ms=None if ttft_ms is None else round(ttft_ms, 3),
                reason=reason,
            )
        )
