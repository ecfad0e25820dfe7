"""An engine in memory: answers with the tokens a script says, at a settable pace. Knows no model.

Implements ``EngineClient``. Remembers what it was asked, what was cancelled, and which requests are open; can refuse,
and can die. Its prefix cache is honest in a small way: a prompt finds as many whole pages as an earlier one began with.
"""

import asyncio
import itertools
from array import array
from collections.abc import Callable, Sequence

import msgspec

from backend.engine.client import tenant_settings
from backend.engine.event_stream import EventStream
from backend.engine.messages import (
    EngineInfo,
    Lane,
    Load,
    Output,
    Report,
    SetTenant,
    Snapshot,
    Started,
    Submit,
    TokenLogprobs,
)
from backend.errors import EngineError

PAGE = 16


def fake_logprobs(token: int, count: int) -> TokenLogprobs:
    """The token with half, the ids after it with less."""
    return TokenLogprobs(-0.5, [token + i for i in range(count)], [-0.5 - i for i in range(count)])


def fake_scores(submit: Submit, prompt: "array[int]") -> tuple[TokenLogprobs, ...]:
    """Of a prompt's tokens but the first, if asked for."""
    count = submit.sampling.prompt_logprobs
    return () if count is None else tuple(fake_logprobs(token, count) for token in prompt[1:])


class FakeGeneration(EventStream):
    """One request of the fake."""

    def __init__(self, engine: "FakeEngine", submit: Submit) -> None:
        super().__init__()
        self._engine = engine
        self.submit = submit
        self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        request = self.submit.request
        if request in self._engine.open:
            self._engine.cancelled.append(request)
            self.close()
            self._end()

    def die(self) -> None:
        """The engine is gone."""
        self._end()
        self.push(Output(self.submit.request, [], "error", "engine_error", "the engine died"))

    def _end(self) -> None:
        self._engine.open.pop(self.submit.request, None)
        self._task.cancel()

    async def _run(self) -> None:
        submit, engine = self.submit, self._engine
        if engine.refusal is not None:
            engine.open.pop(submit.request, None)
            self.push(msgspec.structs.replace(engine.refusal, request=submit.request))
            return
        prompt = array("I", submit.prompt)
        await asyncio.sleep(engine.prefill_seconds)
        self.push(Started(submit.request, engine.find(prompt), 0.0))
        tokens = engine.answer(list(prompt))
        for count, token in enumerate(tokens, 1):
            await asyncio.sleep(engine.seconds_per_token)
            stop = token in submit.stop_tokens
            finish = "stop" if stop else "length" if count >= submit.max_tokens else ""
            engine.step(finish)
            logprobs = () if submit.sampling.logprobs is None else (fake_logprobs(token, submit.sampling.logprobs),)
            scores = fake_scores(submit, prompt) if count == 1 else ()
            if finish:
                engine.open.pop(submit.request, None)
            self.push(Output(submit.request, [token], finish, logprobs=logprobs, prompt_logprobs=scores))
            if finish:
                return
        engine.open.pop(submit.request, None)


class FakeEngine:
    """``answer``: prompt ids to the ids of an endless or stop-terminated answer.

    ``refusal``: what every request gets instead. ``pin_pages``: budget of pins. ``public``: published prompts by name,
    with their pins.
    """

    def __init__(
        self,
        answer: Callable[[list[int]], Sequence[int]],
        *,
        vocab_size: int = 502,
        max_context: int = 4096,
        seconds_per_token: float = 0.0,
        prefill_seconds: float = 0.0,
    ) -> None:
        self.answer = answer
        self.seconds_per_token = seconds_per_token
        self.prefill_seconds = prefill_seconds
        self.info = EngineInfo("fake", 0, vocab_size, max_context, PAGE, 1024, 16, "float32", "cpu", 0, 0)
        self.load = Load()
        self.step_ms = 0.0
        self.refusal: Output | None = None
        self.pin_pages = 1024
        self.public: dict[str, tuple[bytes, str]] = {}
        self.tenants: dict[str, SetTenant] = {}
        self.submitted: list[Submit] = []
        self.cancelled: list[int] = []
        self.open: dict[int, FakeGeneration] = {}
        self._alive = True
        self._ids = itertools.count(1)
        self._prompts: list[array[int]] = []

    @property
    def alive(self) -> bool:
        return self._alive

    def next_request_id(self) -> int:
        return next(self._ids)

    def generate(self, submit: Submit) -> FakeGeneration:
        if not self._alive:
            raise EngineError("the engine is gone")
        if submit.request in self.open:
            raise ValueError("a request id was used twice")
        self.submitted.append(submit)
        self.open[submit.request] = generation = FakeGeneration(self, submit)
        return generation

    async def inspect(self, check: bool = False) -> Report:
        return Report(self.load)

    async def publish_prompt(self, name: str, prompt: bytes, pin: str = "soft") -> None:
        if not self._alive:
            raise EngineError("the engine is gone")
        pages = len(prompt) // 4 // PAGE
        pinned = sum(len(other) // 4 // PAGE for other, kind in self.public.values() if kind)
        if not pages or (pin and pinned + pages > self.pin_pages):
            words = f"{name} needs {pages} pages; {pinned} of the budget of {self.pin_pages} are in use"
            raise EngineError(words, code="prompt_not_published", status=409)
        self.public[name] = (prompt, pin)
        self._prompts.append(array("I", prompt))

    def withdraw_prompt(self, name: str, prompt: bytes) -> None:
        self.public.pop(name, None)

    def set_tenant(self, tenant: str, weight: float = 1.0, page_limit: int = 0, page_watermark: int = 0) -> None:
        self.tenants[tenant] = tenant_settings(tenant, weight, page_limit, page_watermark)

    async def look(self, tenant: str, everything: bool = False, limit: int = 200) -> Snapshot:
        return Snapshot([], 0, 0)

    async def lanes(self, tenant: str, everything: bool = False, limit: int = 256) -> list[Lane]:
        return [
            Lane(request, one.tenant, "running", len(one.prompt) // 4, len(one.prompt) // 4, self.info.max_context, 0)
            for request, one in ((request, generation.submit) for request, generation in self.open.items())
            if everything or one.tenant == tenant
        ]

    async def close(self) -> None:
        self.die()

    def die(self) -> None:
        """End every request with an error."""
        self._alive = False
        for generation in list(self.open.values()):
            generation.die()

    def find(self, prompt: "array[int]") -> int:
        """Tokens of ``prompt`` that an earlier prompt began with, in whole pages, at least one token left over."""
        best = 0
        for other in self._prompts:
            same = next((i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), None)
            best = max(best, min(len(prompt), len(other)) if same is None else same)
        self._prompts.append(prompt)
        return min(best, len(prompt) - 1) // PAGE * PAGE

    def step(self, finish: str) -> None:
        """Count a step."""
        counts = {name: getattr(self.load, name) for name in Load.__struct_fields__}
        counts |= {"steps": self.load.steps + 1, "output_tokens": self.load.output_tokens + 1}
        counts["running"] = max(0, len(self.open) - bool(finish))
        self.load = Load(**counts)
