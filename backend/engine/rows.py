"""The rows of a step: on the host, and on the device as the tensors of a forward pass. Knows pages and positions; not
whose they are."""

from dataclasses import dataclass

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
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
    slots              [rows] where each row's key and value go: page * page_size + offset
    logit_rows         [outputs] rows whose logits are wanted
    counts, starts     [chunks] tokens of each, and the position of the first
    tables             [chunks, most pages] int32
    first_rows         [chunks] row of each chunk's first token
    emitting           [outputs] index of the chunk that each row of logits belongs to
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


def place_rows(rows: StepRows, pool: KVPool) -> Batch:
    """The rows on the pool's device, padded as its matrix products want it."""
    device = pool.storage.device
    multiple = 1 if computes(pool.storage.dtype, device) else ROW_MULTIPLE

    def placed(values: np.ndarray, padding: int = 0) -> torch.Tensor:
        padded = np.full(len(values) + -len(values) % multiple, padding, np.int64)
        padded[: len(values)] = values
        return torch.from_numpy(padded).to(device)

    return Batch(
        tokens=placed(rows.tokens),
        positions=placed(rows.positions),
        slots=placed(rows.slots, pool.scratch * pool.page_size),
        attention=plan_attention(rows.counts, rows.starts, rows.tables, pool.storage, pool.heads),
        logit_rows=placed(rows.logit_rows),
    )
