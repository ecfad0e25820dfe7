"""Carries out plans: one ``StepPlan`` in, one ``StepResult`` out. Owns the KV pool, block tables and sampling settings.

Knows no text, no tenants and no scheduling; it trusts a plan's pages to be the right ones, and refuses a request whose
chunk cannot be computed without failing the others.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from backend.engine.batch import BlockTables, StepBatch, in_tree_order, step_rows
from backend.engine.graphs import Pass, passes_for
from backend.engine.kv_pool import KVPool
from backend.engine.kv_pool import kv_bytes_per_page as bytes_per_page
from backend.engine.landing import Landing
from backend.engine.prompt_scores import PromptScores
from backend.engine.sampling import Draws, SlotSampling
from backend.models.config import ModelConfig
from backend.models.decoder import Decoder
from scheduler.plan import Chunk, Opened, StepPlan, StepResult, TokenLogprobs


class Runner:
    """A model with its pool. Call ``run`` from one thread, plan after plan."""

    def __init__(self, model: Decoder, pages: int, page_size: int, max_running: int, max_context: int = 0) -> None:
        """``max_running`` slots of at most ``max_context`` tokens each (0: what the model allows)."""
        self.model = model
        self.pool = KVPool(model.config, pages, page_size, model.dtype, model.device)
        self._max_context = min(max_context or model.config.max_context, model.config.max_context)
        self._tables = BlockTables(max_running, -(-self._max_context // page_size))
        self._passes = passes_for(model, self.pool, max_running, self._tables.pages.shape[1])
        self._sampling = SlotSampling(max_running, model.config.vocab_size, model.device)
        self._scores = PromptScores()
        self._ordered: tuple[object, list[int]] = (None, [])
        self._broken: dict[int, str] = {}  # open slots that cannot go on, and why

    @staticmethod
    def kv_bytes_per_page(config: ModelConfig, page_size: int, dtype: torch.dtype) -> int:
        """Bytes of KV memory that one page takes."""
        return bytes_per_page(config, page_size, dtype)

    def run(self, plan: StepPlan) -> StepResult:
        """Close slots, open slots, compute chunks, draw tokens; in this order."""
        return self.start(plan)()

    @torch.inference_mode()
    def start(self, plan: StepPlan) -> Callable[[], StepResult]:
        """``run`` up to the point where the host has to wait for the device; the rest is in the returned function.
        Steps are finished in the order in which they were started; the next may be started before."""
        for slot in plan.freed:
            self._reset(slot)
        for opened in plan.opened:
            self._open(opened)
        failures: dict[int, str] = {}
        kept = []
        for index, chunk in enumerate(plan.chunks):
            if problem := self._append(chunk):
                failures[chunk.request] = problem
            else:
                kept.append(index)
        if not kept:
            return lambda: StepResult(plan.step, [[] for _ in plan.chunks], failures)
        kept = [kept[place] for place in self._order([plan.chunks[index] for index in kept])]
        chunks = [plan.chunks[index] for index in kept]
        rows = step_rows(chunks, [_token_ids(chunk) for chunk in chunks], self._tables, self.pool)
        if len(scored := self._scores.rows(chunks, rows.first_rows)):  # behind those that are drawn from
            rows = replace(rows, logit_rows=np.concatenate([rows.logit_rows, scored]))
        draws = self._draws([chunks[place] for place in rows.emitting])
        step = StepBatch(chunks, self._passes.place(rows, draws), rows.slots, rows.first_rows, rows.emitting)
        passed = self._passes.forward(step.batch)
        landed = Landing(self._draw(passed, draws), passed.fine[: len(draws.slots)], passed.finite)
        extra = passed.logits if self._sampling.reports or len(scored) else None
        finish = partial(self._finish, plan, kept, step, landed, failures, extra, len(scored))
        if extra is None:
            return finish
        result = finish()  # the next step writes its logits over these
        return lambda: result

    @torch.inference_mode()
    def _finish(
        self,
        plan: StepPlan,
        kept: list[int],
        step: StepBatch,
        landed: Landing,
        failures: dict[int, str],
        logits: torch.Tensor | None,
        scored: int,
    ) -> StepResult:
        drawn, fine, finite = landed.wait()
        failures |= self._not_finite(step, finite)
        chunks = [step.chunks[place] for place in step.emitting]
        for chunk, good in zip(chunks, fine.tolist(), strict=True):
            if not good:
                failures.setdefault(chunk.request, "the model computed logits that are not finite")
        tokens: list[list[int]] = [[] for _ in plan.chunks]
        for place, token in zip(step.emitting, drawn.tolist(), strict=True):
            if step.chunks[place].request not in failures:
                tokens[kept[place]] = [token]
        if logits is None:
            return StepResult(plan.step, tokens, failures)
        logprobs = self._logprobs(step, logits, drawn, failures)
        prompts = self._score_prompts(step.chunks, logits[len(step.emitting) :], scored, failures)
        return StepResult(plan.step, tokens, failures, logprobs, prompts)

    def _order(self, chunks: list[Chunk]) -> list[int]:
        """``in_tree_order``, remembered while the same requests decode."""
        slots = np.array([chunk.slot for chunk in chunks])
        key = (slots.tobytes(), self._tables.versions[slots].tobytes())
        if any(chunk.count > 1 for chunk in chunks):
            return in_tree_order(chunks, self._tables)
        if key != self._ordered[0]:
            self._ordered = (key, in_tree_order(chunks, self._tables))
        return self._ordered[1]

    def _reset(self, slot: int) -> None:
        self._tables.reset(slot)
        self._sampling.reset(slot)
        self._scores.reset(slot)
        self._broken.pop(slot, None)

    def _open(self, opened: Opened) -> None:
        self._reset(opened.slot)
        if problem := self._sampling.set(opened.slot, opened.sampling, opened.tokens, opened.prompt_tokens):
            self._broken[opened.slot] = problem
        else:
            self._scores.open(opened)

    def _append(self, chunk: Chunk) -> str:
        """Take over the chunk's pages; returns why it cannot be computed, or an empty string."""
        slot, count, pages = chunk.slot, chunk.count, chunk.new_pages
        end = chunk.start + count
        if slot in self._broken:
            return self._broken[slot]
        if count == 0:
            return "the chunk has no tokens"
        if end > self._max_context:
            return f"position {end - 1} is past the context of {self._max_context} tokens"
        room = int(self._tables.held[slot]) + len(pages)
        if pages:
            if not 0 <= min(pages) <= max(pages) < self.pool.pages:
                return f"page ids {pages} are not all in a pool of {self.pool.pages}"
            if room > self._tables.pages.shape[1]:
                return f"{room} pages are more than a context of {self._max_context} tokens has"
            self._tables.append(slot, pages)
        if room * self.pool.page_size < end:
            return f"{room} pages of {self.pool.page_size} tokens do not reach position {end - 1}"
        if count == chunk.chain:
            return ""  # the first of a chain is one that was drawn
        # Most chunks are one token, and numpy takes long for one.
        largest = int.from_bytes(chunk.tokens, "little") if count == 1 else int(_token_ids(chunk)[chunk.chain :].max())
        if largest >= self.model.config.vocab_size:
            return f"token id {largest} is outside of the vocabulary of {self.model.config.vocab_size}"
        return ""

    def _not_finite(self, step: StepBatch, finite: np.ndarray) -> dict[int, str]:
        """Requests with a state that is not a number. What they wrote is zeroed, so that nobody reads it out of a
        reused page."""
        if finite.all():
            return {}
        counts = np.diff(step.first_rows, append=sum(chunk.count for chunk in step.chunks))
        rows = finite[: int(counts.sum())]
        if rows.all():
            return {}
        fine = np.logical_and.reduceat(rows, step.first_rows)
        self.pool.clear(torch.from_numpy(step.slots[~np.repeat(fine, counts)]).to(self.model.device))
        message = "the model computed values that are not finite"
        return {chunk.request: message for chunk, good in zip(step.chunks, fine, strict=True) if not good}

    def _draws(self, emitting: list[Chunk]) -> Draws:
        slots = np.array([chunk.slot for chunk in emitting], np.int64)
        return self._sampling.draws(slots, np.array([chunk.start + chunk.count for chunk in emitting], np.int64))

    def _draw(self, passed: Pass, draws: Draws) -> torch.Tensor:
        """A token for each emitting chunk, on the device, where it is remembered for the slot."""
        count = len(draws.slots)
        if passed.drawn is not None and not self._sampling.special(draws.slots):
            return passed.drawn[:count]
        logits, fine = passed.logits[:count], passed.fine[:count]
        if count == 0:
            return torch.zeros(0, dtype=torch.int64, device=logits.device)
        if logits.device.type == "cpu" and not bool(fine.all()):
            logits = torch.nan_to_num(logits)  # a GPU's draw takes whatever comes
        return self._sampling.draw(logits, draws, self._passes.last)

    def _logprobs(
        self, step: StepBatch, logits: torch.Tensor, drawn: np.ndarray, failures: dict[int, str]
    ) -> dict[int, tuple[TokenLogprobs, ...]]:
        """Of the drawn tokens, by request, for those that asked."""
        if not self._sampling.reports:
            return {}
        chunks = [step.chunks[place] for place in step.emitting]
        found = self._sampling.logprobs(
            logits[: len(chunks)], np.array([chunk.slot for chunk in chunks], np.int64), drawn
        )
        by_request = {chunks[row].request: (logprobs,) for row, logprobs in found.items()}
        return {request: logprobs for request, logprobs in by_request.items() if request not in failures}

    def _score_prompts(
        self, chunks: list[Chunk], logits: torch.Tensor, scored: int, failures: dict[int, str]
    ) -> dict[int, tuple[TokenLogprobs, ...]]:
        """Of the prompts that these chunks completed, by request; ``logits``: of the ``scored`` rows, then padding."""
        if scored:
            self._scores.take_in(chunks, logits[:scored])
        found = self._scores.finished(chunks)
        return {request: logprobs for request, logprobs in found.items() if request not in failures}


def _token_ids(chunk: Chunk) -> np.ndarray:
    return np.frombuffer(chunk.tokens, "<u4").astype(np.int64)
