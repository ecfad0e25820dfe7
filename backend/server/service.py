"""The chat service: a model's text side and an engine, with the measurements between them.

Owns the ``EngineClient``. Knows no protocol and no socket. One per server process.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from backend.engine.client import EngineClient, Generation
from backend.engine.event_stream import Hear
from backend.engine.messages import Output, Started, Submit, TokenCounts, classify
from backend.errors import BanyanError, EngineError
from backend.server.chat_model import ChatModel
from backend.server.gate import Meter
from backend.server.identity import Identity
from backend.server.limits import Limits
from backend.server.metrics import Metrics
from backend.server.prompts import PromptRegistry
from backend.server.tenancy import Tenancy
from backend.server.tracing import Measured, NoTracing, Trace, Tracing, mark_told
from backend.tenants.limits import TenantLimits

_STALL_SECONDS = 30.0

_log = logging.getLogger("banyan.server")


class TenantTokens(NamedTuple):
    """Prompt tokens found and computed, by class, and tokens drawn."""

    hits: TokenCounts = TokenCounts()
    misses: TokenCounts = TokenCounts()
    output: int = 0


class ChatService:
    """What the routes share. ``clock`` is in seconds and never jumps."""

    def __init__(
        self,
        engine: EngineClient,
        model_folder: Path,
        model_name: str,
        prompts: PromptRegistry | None = None,
        limits: Limits | None = None,
        *,
        tenancy: Tenancy | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``tenancy``: who may do what; without it there is one local tenant, with ``prompts``. ``tracing``: who hears
        of each request.

        Raises ``StartError`` when the folder's tokenizer or template cannot be used."""
        self.engine = engine
        self.clock = clock
        self.limits = limits or Limits()
        self.tenancy = tenancy or Tenancy(
            None, prompts, local_limits=TenantLimits(sockets_per_key=self.limits.sockets_per_key)
        )
        self.prompts = self.tenancy.prompts
        self.created = int(time.time())
        self.model = ChatModel(
            model_folder,
            model_name,
            max_context=engine.info.max_context,
            vocab_size=engine.info.vocab_size,
            prompts=self.prompts,
            limits=self.limits,
            gate=self.tenancy.gate,
        )
        self.metrics = Metrics(engine.info, lambda: engine.load, lambda: engine.alive)
        self.metrics.add(self.tenancy)
        self.tracing = tracing or NoTracing()
        self.draining = False
        self._open = 0
        self._tokens: dict[str, TenantTokens] = {}
        self._seen_steps = -1
        self._seen_at = clock()

    @property
    def open_requests(self) -> int:
        """Generations that have not ended."""
        return self._open

    def new_id(self) -> str:
        """Unguessable; for responses, messages and completions."""
        return secrets.token_hex(16)

    def generate(self, submit: Submit, began: float, operation: str = "chat") -> "MeasuredGeneration":
        """Hand a request to the engine that ``ChatModel.submit`` has made. ``began``: when it came, on ``clock``;
        ``operation``: its name in traces.

        Raises ``EngineError`` when the engine is gone, ``BanyanError`` (``server_overloaded``) when too many are open.
        """
        try:
            meter = self._admit(submit)
        except BanyanError as error:
            mark_told()
            self.tracing.refused(error, began, submit.tenant, operation)
            raise
        try:
            generation = self.engine.generate(submit)
        except BaseException:
            meter.ended(0, None, "error")
            raise
        self._open += 1
        mark_told()
        trace = self.tracing.begin(submit, self.model.name, operation)
        return MeasuredGeneration(self, generation, meter, submit, began, trace)

    def refused(self, identity: Identity, error: BanyanError, began: float) -> None:
        """A socket was told that a response cannot be had, before the engine was asked."""
        mark_told()
        self.tracing.refused(error, began, identity.tenant, "chat")

    def _admit(self, submit: Submit) -> Meter:
        if self.draining:
            raise BanyanError("the server is going down", code="server_draining", status=503)
        if self._open >= self.limits.open_requests:
            raise BanyanError("too many requests are open; try again soon", code="server_overloaded", status=503)
        if not self.engine.alive:
            raise EngineError("the engine is gone", status=503)
        return self.tenancy.gate.begin(submit.request)

    def queue_position(self) -> int:
        """How many requests go before one handed in now, itself counted, by the last step; 0 when it would run."""
        load = self.engine.load
        return load.waiting + 1 if load.waiting or load.running >= self.engine.info.max_running else 0

    def tokens_of(self, tenant: str) -> "TenantTokens":
        """What a tenant's requests came to since this server started."""
        return self._tokens.get(tenant) or TenantTokens()

    def count_prompt(self, submit: Submit, cached: int) -> None:
        """A request runs, ``cached`` of its prompt tokens found."""
        before = self.tokens_of(submit.tenant)
        whole = classify(len(submit.prompt) // 4, submit.system_tokens, submit.history_tokens)
        found = classify(cached, submit.system_tokens, submit.history_tokens)
        missed = TokenCounts(whole.system - found.system, whole.history - found.history, whole.shared - found.shared)
        self._tokens[submit.tenant] = TenantTokens(before.hits + found, before.misses + missed, before.output)

    def count_output(self, tenant: str, tokens: int) -> None:
        """So many tokens were drawn."""
        before = self.tokens_of(tenant)
        self._tokens[tenant] = TenantTokens(before.hits, before.misses, before.output + tokens)

    def closed_one(self) -> None:
        """A generation ended or was cancelled; called once by each."""
        self._open -= 1

    def healthy(self) -> bool:
        """False when the engine is gone, or stood still for 30 s with requests open, as seen from call to call."""
        if not self.engine.alive:
            return False
        now, steps = self.clock(), self.engine.load.steps
        if steps != self._seen_steps or not self._open:
            self._seen_steps, self._seen_at = steps, now
        return now - self._seen_at < _STALL_SECONDS


class MeasuredGeneration:
    """A ``Generation`` that is watched as it passes: queue time, TTFT, gaps, counts."""

    __slots__ = (
        "_began",
        "_count",
        "_first",
        "_generation",
        "_handed",
        "_hear",
        "_last",
        "_meter",
        "_open",
        "_prompt_tokens",
        "_service",
        "_started",
        "_submit",
        "_trace",
    )
    _hear: Hear  # once somebody listens

    def __init__(
        self,
        service: ChatService,
        generation: Generation,
        meter: Meter,
        submit: Submit,
        began: float,
        trace: Trace,
    ) -> None:
        self._service = service
        self._generation = generation
        self._meter = meter
        self._trace = trace
        self._handed = service.clock()
        self._first: float | None = None
        self._submit = submit
        self._prompt_tokens = len(submit.prompt) // 4
        self._began = began
        self._started: Started | None = None
        self._last: float | None = None
        self._count = 0
        self._open = True

    async def __aiter__(self) -> AsyncIterator[Started | Output]:
        try:
            async for event in self._generation:
                self._measure(event)
                yield event
        finally:
            self._end("abort")

    def listen(self, hear: Hear) -> None:
        """See ``Generation``."""
        self._hear = hear
        self._generation.listen(self._pass_on)

    def cancel(self) -> None:
        """Free everything at once; idempotent."""
        self._generation.cancel()
        self._end("abort")

    def _pass_on(self, event: Started | Output | None) -> None:
        try:
            self._measure(event)
        except Exception:
            _log.exception("a request could not be measured")
            event = None
        self._hear(event)

    def _measure(self, event: Started | Output | None) -> None:
        if event is None:
            self._end("abort")
        elif isinstance(event, Started):
            self._on_start(event)
        else:
            if event.tokens:
                now = self._service.clock()
                if self._last is None:
                    self._on_first(now)
                else:
                    self._service.metrics.itl.observe((now - self._last) / len(event.tokens))
                self._last = now
                self._count += len(event.tokens)
            if event.finish:
                self._end(event.finish)

    def _on_start(self, event: Started) -> None:
        self._started = event
        self._meter.started(event.cached)
        self._service.count_prompt(self._submit, event.cached)
        self._service.metrics.queue.observe(event.queue_ms / 1000)
        self._service.metrics.prompt.observe(self._prompt_tokens)

    def _on_first(self, now: float) -> None:
        self._first = now
        self._service.metrics.ttft.observe(now - self._began)
        if self._started is not None:
            computed = self._prompt_tokens - self._started.cached
            self._service.model.prefill_rate.add(computed, 1000 * (now - self._began) - self._started.queue_ms)

    def _end(self, reason: str) -> None:
        if not self._open:
            return
        self._open = False
        self._service.closed_one()
        now, started, first = self._service.clock(), self._started, self._first
        self._meter.ended(self._count, None if first is None else 1000 * (first - self._began), reason)
        running = None if started is None else min(self._handed + started.queue_ms / 1000, first or now)
        cached = 0 if started is None else started.cached
        self._trace.ended(Measured(self._began, self._handed, running, first, now, cached, self._count, reason))
        self._service.count_output(self._submit.tenant, self._count)
        metrics = self._service.metrics
        metrics.ended.labels(finished_reason=reason).inc()
        metrics.output.observe(self._count)
        metrics.whole.observe(now - self._began)
