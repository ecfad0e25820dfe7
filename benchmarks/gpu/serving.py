"""An engine to measure and to check: scheduler, cache, runner and draw around a model, without server and process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.engine.overlap import Overlapped, Queued
from backend.engine.runner import Runner
from backend.models.decoder import Decoder
from scheduler.arms import ARMS
from scheduler.loop import StepLoop
from scheduler.plan import Sampling
from scheduler.request import NewRequest
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings


@dataclass
class Outcome:
    """Of requests that came at once: tokens of each; when each step with output ended, in seconds from the start, with
    the number of requests that got a token; and when the last request had its first one."""

    tokens: list[list[int]]
    ended: list[tuple[float, int]] = field(default_factory=list)
    first_tokens_s: float = float("nan")


class Serving:
    """An engine with a pool of ``pages`` for ``requests`` at once."""

    def __init__(
        self, model: Decoder, pages: int, page: int, requests: int, max_context: int, step_tokens: int
    ) -> None:
        settings = Settings(page, pages, requests, step_tokens, max_context=max_context, inter_token_s=0.0)
        self._scheduler = Scheduler(settings, ARMS["shared"].cache(pages, page, secret=b"benchmark"))
        runner = Runner(model, pages, page, requests, max_context)
        executor = (Queued if model.device.type == "cuda" else Overlapped)(runner, time.monotonic)
        self._steps = StepLoop(self._scheduler, executor, time.monotonic)
        self._requests = 0

    def run(self, prompts: Sequence[np.ndarray], new: int, samplings: Sequence[Sampling]) -> Outcome:
        """``new`` tokens for each prompt, all handed in now. Raises RuntimeError where a request fails."""
        first = self._requests
        began = time.monotonic()
        for prompt, sampling in zip(prompts, samplings, strict=True):
            self._scheduler.submit(
                NewRequest(
                    request=self._requests,
                    prompt=prompt.astype("<u4").tobytes(),
                    max_tokens=new,
                    sampling=sampling,
                    stop_tokens=frozenset(),
                    tenant="local",
                    namespace="",
                    system_tokens=0,
                    history_tokens=0,
                    queue_seconds=0.0,
                    seconds=0.0,
                ),
                time.monotonic(),
            )
            self._requests += 1
        outcome = Outcome([[] for _ in prompts])
        while self._scheduler.has_work or self._steps.in_flight:
            step = self._steps.step()
            if step is None:
                continue
            for progress in step.progress:
                if progress.finish == "error":
                    raise RuntimeError(progress.message)
                outcome.tokens[progress.request - first] += progress.tokens
            if step.progress:
                outcome.ended.append((time.monotonic() - began, len(step.progress)))
            if all(outcome.tokens) and np.isnan(outcome.first_tokens_s):
                outcome.first_tokens_s = outcome.ended[-1][0]
        return outcome
