"""Carries out plans: one ``StepPlan`` in, one ``StepResult`` out. Owns the KV pool, block tables and sampling settings.

Knows no text, no tenants and no scheduling; it trusts a plan's pages to be the right ones, and refuses a request whose
chunk cannot be computed without failing the others.
"""

from dataclasses import replace

import numpy as np
import torch

from backend.engine.batch import BlockTables, StepBatch, in_tree_order, step_rows
from backend.engine.graphs import passes_for
from backend.engine.kv_pool import KVPool
from backend.engine.kv_pool import kv_bytes_per_page as bytes_per_page
from backend.engine.prompt_scores import PromptScores
from backend.engine.sampling import SlotSampling
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
        self._last = np.zeros(max_running, np.int64)  # token that each slot drew last
        self._broken: dict[int, str] = {}  # open slots that cannot go on, and why

    @staticmethod
    def kv_bytes_per_page(config: ModelConfig, page_size: int, dtype: torch.dtype) -> int:
        """Bytes of KV memory that one page takes."""
        return bytes_per_page(config, page_size, dtype)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        """Close slots, open slots, compute chunks, draw tokens; in this order."""
        for slot in plan.freed:
            self._reset(slot)
        for opened in plan.opened:
            self._open(opened)
        tokens: list[list[int]] = [[] for _ in plan.chunks]
        failures: dict[int, str] = {}
        logprobs: dict[int, tuple[TokenLogprobs, ...]] = {}
        prompts: dict[int, tuple[TokenLogprobs, ...]] = {}
        kept, ids = [], []
        for index, chunk in enumerate(plan.chunks):
            if problem := self._append(chunk):
                failures[chunk.request] = problem
            else:
                kept.append(index)
                ids.append(self._token_ids(chunk))
        if kept:
            order = in_tree_order([plan.chunks[index] for index in kept], self._tables)
            kept, ids = [kept[place] for place in order], [ids[place] for place in order]
            chunks = [plan.chunks[index] for index in kept]
            rows = step_rows(chunks, ids, self._tables, self.pool)
            if len(scored := self._scores.rows(chunks, rows.first_rows)):  # behind those that are drawn from
                rows = replace(rows, logit_rows=np.concatenate([rows.logit_rows, scored]))
            step = StepBatch(chunks, self._passes.place(rows), rows.first_rows, rows.emitting)
            logits, finite = self._passes.forward(step.batch)
            failures |= self._not_finite(step, finite.cpu().numpy())
            drawn = self._draw(step, logits, failures)
            for place, token in zip(step.emitting, drawn, strict=True):
                if step.chunks[place].request not in failures:
                    tokens[kept[place]] = [int(token)]
            logprobs = self._logprobs(step, logits, drawn, failures)
            prompts = self._score_prompts(chunks, logits[len(step.emitting) :], len(scored), failures)
        return StepResult(plan.step, tokens, failures, logprobs, prompts)

    def _reset(self, slot: int) -> None:
        self._tables.reset(slot)
        self._sampling.reset(slot)
        self._scores.reset(slot)
        self._last[slot] = 0
        self._broken.pop(slot, None)

    def _open(self, opened: Opened) -> None:
        self._reset(opened.slot)
        if problem := self._sampling.set(opened.slot, opened.sampling, opened.tokens, opened.prompt_tokens):
            self._broken[opened.slot] = problem
        else:
            self._scores.open(opened)

    def _append(self, chunk: Chunk) -> str:
        """Take over the chunk's pages; returns why it cannot be computed, or an empty string."""
        slot, end = chunk.slot, chunk.start + chunk.count
        if slot in self._broken:
            return self._broken[slot]
        if chunk.count == 0:
            return "the chunk has no tokens"
        if end > self._max_context:
            return f"position {end - 1} is past the context of {self._max_context} tokens"
        if any(not 0 <= page < self.pool.pages for page in chunk.new_pages):
            return f"page ids {chunk.new_pages} are not all in a pool of {self.pool.pages}"
        room = int(self._tables.held[slot]) + len(chunk.new_pages)
        if room > self._tables.pages.shape[1]:
            return f"{room} pages are more than a context of {self._max_context} tokens has"
        self._tables.append(slot, chunk.new_pages)
        if room * self.pool.page_size < end:
            return f"{room} pages of {self.pool.page_size} tokens do not reach position {end - 1}"
        ids = self._token_ids(chunk)
        if int(ids.max()) >= self.model.config.vocab_size:
            return f"token id {int(ids.max())} is outside of the vocabulary of {self.model.config.vocab_size}"
        return ""

    def _token_ids(self, chunk: Chunk) -> np.ndarray:
        ids = np.frombuffer(chunk.tokens, "<u4").astype(np.int64)
        if chunk.chain:
            ids[0] = self._last[chunk.slot]
        return ids

    def _not_finite(self, step: StepBatch, finite: np.ndarray) -> dict[int, str]:
        """Requests with a state that is not a number. What they wrote is zeroed, so that nobody reads it out of a
        reused page."""
        counts = np.diff(step.first_rows, append=sum(chunk.count for chunk in step.chunks))
        rows = finite[: int(counts.sum())]
        if rows.all():
            return {}
        fine = np.logical_and.reduceat(rows, step.first_rows)
        self.pool.clear(step.batch.slots[torch.from_numpy(~np.repeat(fine, counts)).nonzero()[:, 0]])
        message = "the model computed values that are not finite"
        return {chunk.request: message for chunk, good in zip(step.chunks, fine, strict=True) if not good}

    def _draw(self, step: StepBatch, logits: torch.Tensor, failures: dict[int, str]) -> np.ndarray:
        """A token for each emitting chunk; remembers it for the slot. Rows that are not finite are reported in
        ``failures``."""
        logits = logits[: len(step.emitting)]
        if len(logits) == 0:
            return np.zeros(0, np.int64)
        chunks = [step.chunks[place] for place in step.emitting]
        for chunk, good in zip(chunks, logits.sum(-1).isfinite().tolist(), strict=True):
            if not good:
                failures.setdefault(chunk.request, "the model computed logits that are not finite")
        slots = np.array([chunk.slot for chunk in chunks])
        positions = np.array([chunk.start + chunk.count for chunk in chunks], np.int64)
        drawn = self._sampling.draw(torch.nan_to_num(logits) if failures else logits, slots, positions)
        self._last[slots] = drawn
        return drawn

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
