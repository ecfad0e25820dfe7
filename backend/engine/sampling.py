"""How each slot draws its tokens. Knows slots and rows; the draw itself is ``kernels.sample``."""

import math

import numpy as np
import torch

from kernels.sample import sample
from scheduler.plan import Sampling


class SlotSampling:
    """Sampling settings by slot, one row each, set when a slot is opened."""

    def __init__(self, slots: int) -> None:
        self._temperature = np.zeros(slots, np.float32)
        self._top_k = np.zeros(slots, np.int64)
        self._top_p = np.ones(slots, np.float32)
        self._seed = np.zeros(slots, np.int64)

    def set(self, slot: int, sampling: Sampling) -> str:
        """Take over the settings; returns what is wrong with them, or an empty string. Wrong ones leave the slot
        greedy."""
        problem = _problem(sampling)
        if problem:
            sampling = Sampling(temperature=0.0)
        self._temperature[slot] = sampling.temperature
        self._top_k[slot] = min(sampling.top_k, 1 << 40)
        self._top_p[slot] = sampling.top_p
        # Any integer is a seed: its low 64 bits, as a signed number.
        self._seed[slot] = np.uint64(sampling.seed & ((1 << 64) - 1)).astype(np.int64)
        return problem

    def draw(self, logits: torch.Tensor, slots: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """One token for each row of logits [rows, vocab] float32, which belongs to ``slots[row]`` and gets
        ``positions[row]``."""

        def column(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(logits.device)

        drawn = sample(
            logits,
            temperature=column(self._temperature[slots]),
            top_k=column(self._top_k[slots]),
            top_p=column(self._top_p[slots]),
            seed=column(self._seed[slots]),
            position=column(positions),
        )
        return np.asarray(drawn.cpu().numpy())


def _problem(sampling: Sampling) -> str:
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        return f"temperature must be a finite number from 0, not {sampling.temperature}"
    if not 0 <= sampling.top_p <= 1:
        return f"top_p must be from 0 to 1, not {sampling.top_p}"
    if sampling.top_k < 0:
        return f"top_k must not be negative, not {sampling.top_k}"
    return ""
