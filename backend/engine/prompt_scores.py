"""Log-probabilities of prompts, gathered chunk by chunk for the slots that asked. Knows slots and rows of logits.

The row at position p says how likely the token at p + 1 was; the first token of a prompt has no row before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from backend.engine.sampling import token_logprobs
from scheduler.plan import Chunk, Opened, TokenLogprobs

# Rows whose log-probabilities are computed at once: a row has the width of the vocabulary.
_ROWS = 64


@dataclass
class _Prompt:
    tokens: np.ndarray
    alternatives: int
    found: list[TokenLogprobs] = field(default_factory=list)


class PromptScores:
    """Prompts that are being scored, by slot."""

    def __init__(self) -> None:
        self._prompts: dict[int, _Prompt] = {}

    def reset(self, slot: int) -> None:
        """Nobody has the slot any more."""
        self._prompts.pop(slot, None)

    def open(self, opened: Opened) -> None:
        """A slot is given to a request; it is scored if it asked for that and has no output yet."""
        alternatives = opened.sampling.prompt_logprobs
        tokens = np.frombuffer(opened.tokens, "<u4").astype(np.int64)
        if alternatives is not None and len(tokens) == opened.prompt_tokens:
            self._prompts[opened.slot] = _Prompt(tokens, alternatives)

    def rows(self, chunks: Sequence[Chunk], first_rows: np.ndarray) -> np.ndarray:
        """The rows of a step whose logits are wanted, in the order of the chunks."""
        if not self._prompts:
            return np.zeros(0, np.int64)
        wanted = [
            np.arange(first, first + self._count(chunk))
            for chunk, first in zip(chunks, first_rows.tolist(), strict=True)
        ]
        return np.concatenate(wanted).astype(np.int64, copy=False)

    def take_in(self, chunks: Sequence[Chunk], logits: torch.Tensor) -> None:
        """``logits``: of the rows that ``rows`` named."""
        row = 0
        for chunk in chunks:
            if not (count := self._count(chunk)):
                continue
            prompt = self._prompts[chunk.slot]
            following = prompt.tokens[chunk.start + 1 : chunk.start + 1 + count]
            for at in range(0, count, _ROWS):
                piece = following[at : at + _ROWS]
                part = logits[row + at : row + at + len(piece)]
                prompt.found += token_logprobs(part, piece, [prompt.alternatives] * len(piece))
            row += count

    def finished(self, chunks: Sequence[Chunk]) -> dict[int, tuple[TokenLogprobs, ...]]:
        """By request: those whose prompt was completed by one of these chunks; they are forgotten."""
        if not self._prompts:
            return {}
        ended = [chunk for chunk in chunks if chunk.emits and chunk.slot in self._prompts]
        return {chunk.request: tuple(self._prompts.pop(chunk.slot).found) for chunk in ended}

    def _count(self, chunk: Chunk) -> int:
        """Rows of a chunk that say something of a token of the prompt."""
        prompt = self._prompts.get(chunk.slot)
        return 0 if prompt is None else min(chunk.count, len(prompt.tokens) - 1 - chunk.start)
