"""The rows of a step: on the host, and on the device as the tensors of a forward pass. Knows pages and positions; not
whose they are."""

from dataclasses import dataclass

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
from backend.engine.staging import Staging
from backend.models.batch import Batch
from kernels.cpu.library import computes
from kernels.paged_attention import plan_attention

# Without the CPU library, rows of a matrix product are computed with the same bits whatever the number of rows only
# when that is a multiple of 4: MKL on AVX-512 takes other paths for 1-3 rows, and splits a product over threads at
# multiples of 4.
ROW_MULTIPLE = 4


@dataclass(frozen=True)
class StepRows:
    """A step on the host, not padded; all int64 but ``tables``.

    tokens, positions  [rows]
    feed               [rows] slot whose last drawn token is the row's; -1: ``tokens`` has it
    slots              [rows] where each row's key and value go: page * page_size + offset
    logit_rows         [outputs] rows whose logits are wanted
    counts, starts     [chunks] tokens of each, and the position of the first
    tables             [chunks, most pages] int32
    first_rows         [chunks] row of each chunk's first token
    emitting           [outputs] index of the chunk that each row of logits belongs to
    owners, versions   [chunks] each one's slot, and a number that changes when the slot is given to somebody else
    """

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    logit_rows: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    tables: np.ndarray
    first_rows: np.ndarray
    emitting: np.ndarray
    feed: np.ndarray
    owners: np.ndarray
    versions: np.ndarray


def fed(tokens: torch.Tensor, feed: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """``tokens`` [rows] with those that the slots ``feed`` [rows] (-1: none) drew last in their places."""
    return torch.where(feed >= 0, last[feed.clamp_min(0)], tokens)


def place_rows(rows: StepRows, pool: KVPool, last: torch.Tensor, staging: Staging) -> Batch:
    """The rows on the pool's device, padded as its matrix products want it. ``last``: see ``Passes``."""
    device = pool.storage.device
    multiple = 1 if computes(pool.storage.dtype, device) else ROW_MULTIPLE

    def padded(values: np.ndarray, padding: int = 0) -> np.ndarray:
        return np.concatenate([values, np.full(-len(values) % multiple, padding, np.int64)])

    scratch = pool.scratch * pool.page_size
    lines = [padded(rows.tokens), padded(rows.feed, -1), padded(rows.positions), padded(rows.slots, scratch)]
    tokens, feed, positions, slots = staging.place(np.stack(lines))
    return Batch(
        tokens=fed(tokens, feed, last) if (rows.feed >= 0).any() else tokens,
        positions=positions,
        slots=slots,
        attention=plan_attention(rows.counts, rows.starts, rows.tables, pool.storage, pool.heads),
        logit_rows=staging.place(padded(rows.logit_rows)),
    )
