"""Drives a runner with hand-made plans: gives out pages, feeds prompts in chunks, feeds drawn tokens back."""

from dataclasses import dataclass, field

import numpy as np
import torch

from backend.engine.runner import Runner
from scheduler.plan import Chunk, Opened, Sampling, StepPlan, StepResult

GREEDY = Sampling(temperature=0.0)


def encode(tokens: list[int]) -> bytes:
    """Token ids as a chunk carries them."""
    return np.array(tokens, "<u4").tobytes()


@dataclass
class Sequence:
    """One request: all its tokens, how many are computed, its pages."""

    request: int
    slot: int
    tokens: list[int]
    prompt: int
    chunk: int
    sampling: Sampling = GREEDY
    pages: list[int] = field(default_factory=list)
    sent: int = 0
    computed: int = 0
    held: int = 0
    opened: bool = False
    logits: list[torch.Tensor] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt :]


class Driver:
    """A runner, its free pages and the step number. Logits of emitting rows are kept with their sequences."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        # Last page first: a wrong stride then shows.
        self.free = list(range(runner.pool.pages))
        self.steps = 0
        self.last_logits: dict[int, torch.Tensor] = {}  # by request
        draw = runner._draw

        def recording(passed, draws):
            requests = [100 + slot for slot in draws.slots.tolist()]  # as ``sequence`` numbers them
            self.last_logits = dict(zip(requests, passed.logits.clone(), strict=False))
            return draw(passed, draws)

        runner._draw = recording  # type: ignore[method-assign]

    def sequence(self, slot: int, prompt: list[int], chunk: int = 512, sampling: Sampling = GREEDY) -> Sequence:
        return Sequence(100 + slot, slot, list(prompt), len(prompt), chunk, sampling)

    def warm(self, slot: int, prompt: list[int], source: Sequence, chunk: int = 512) -> Sequence:
        """A sequence that starts from the full pages of ``source``; a wholly cached prompt recomputes its last
        token."""
        size = self.runner.pool.page_size
        sequence = self.sequence(slot, prompt, chunk)
        full = min(len(prompt), source.computed) // size
        sequence.pages = source.pages[:full]
        sequence.computed = min(full * size, len(prompt) - 1)
        sequence.held = full * size - sequence.computed
        return sequence

    def step(self, sequences: list[Sequence]) -> StepResult:
        """One plan: the next chunk of every sequence."""
        chunks, opened = [], []
        for sequence in sequences:
            if not sequence.opened:
                opened.append(Opened(sequence.slot, sequence.request, sequence.sampling, sequence.computed))
                sequence.opened = True
            chunks.append(self._chunk(sequence))
        self.steps += 1
        self.last_logits = {}
        result = self.runner.run(StepPlan(self.steps, chunks, opened))
        for sequence, chunk, tokens in zip(sequences, chunks, result.tokens, strict=True):
            sequence.computed += chunk.count
            sequence.held = 0
            sequence.tokens += tokens
            if sequence.request in self.last_logits and chunk.emits:
                sequence.logits.append(self.last_logits[sequence.request])
        return result

    def finish(self, sequences: list[Sequence], outputs: int) -> None:
        """Step until every sequence has ``outputs`` new tokens; the slots stay open."""
        while going := [sequence for sequence in sequences if len(sequence.output) < outputs]:
            result = self.step(going)
            assert result.failures == {}

    def release(self, sequence: Sequence) -> None:
        """Free the slot in an empty plan."""
        self.steps += 1
        self.runner.run(StepPlan(self.steps, [], freed=[sequence.slot]))

    def _chunk(self, sequence: Sequence) -> Chunk:
        count = min(sequence.chunk, len(sequence.tokens) - sequence.computed)
        end = sequence.computed + count
        while len(sequence.pages) * self.runner.pool.page_size < end:
            sequence.pages.append(self.free.pop())
        new, sequence.sent = sequence.pages[sequence.sent :], len(sequence.pages)
        return Chunk(
            request=sequence.request,
            slot=sequence.slot,
            start=sequence.computed,
            tokens=encode(sequence.tokens[sequence.computed : end]),
            emits=end == len(sequence.tokens),
            new_pages=new,
            held=min(sequence.held, count),
        )
