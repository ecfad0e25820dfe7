"""From the chunks of a plan to the tensors of a forward pass. Knows block tables and slots; no scheduling, no sampling.

Tables are numpy, allocated once; a step fills and slices them, with one Python iteration per chunk and none per token.
"""

from dataclasses import dataclass

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
from backend.models.batch import Batch
from kernels.cpu.library import computes
from kernels.paged_attention import plan_attention
from kernels.prefix_runs import tree_order
from scheduler.plan import Chunk

# Without the CPU library, rows of a matrix product are computed with the same bits whatever the number of rows only
# when that is a multiple of 4: MKL on AVX-512 takes other paths for 1-3 rows, and splits a product over threads at
# multiples of 4.
ROW_MULTIPLE = 4


class BlockTables:
    """The pages of each slot, append-only while it is open."""

    def __init__(self, slots: int, pages_per_slot: int) -> None:
        self.pages = np.zeros((slots, pages_per_slot), np.int32)
        self.held = np.zeros(slots, np.int64)

    def reset(self, slot: int) -> None:
        """Forget the slot's pages."""
        self.held[slot] = 0

    def append(self, slot: int, pages: list[int]) -> None:
        """Add pages to the slot's row."""
        if pages:
            begin = int(self.held[slot])
            self.pages[slot, begin : begin + len(pages)] = pages
            self.held[slot] = begin + len(pages)


@dataclass(frozen=True)
class StepBatch:
    """A batch and which of its rows belong to whom.

    chunks       as computed, in row order
    batch        the tensors of the pass
    first_rows   [chunks] row of each chunk's first token
    emitting     [outputs] index into ``chunks`` for each row of logits
    """

    chunks: list[Chunk]
    batch: Batch
    first_rows: np.ndarray
    emitting: np.ndarray


def in_tree_order(chunks: list[Chunk], tables: BlockTables) -> list[int]:
    """Indices of the chunks so that those with the same first pages are neighbours: what they share is read once."""
    if len(chunks) < 3:
        return list(range(len(chunks)))
    slots = [chunk.slot for chunk in chunks]
    return list(tree_order(tables.pages[slots, : int(tables.held[slots].max())]))


def build_batch(chunks: list[Chunk], tokens: list[np.ndarray], tables: BlockTables, pool: KVPool) -> StepBatch:
    """Lay the chunks' tokens one after another, in the order given. ``tokens[i]``: [count] ids of ``chunks[i]``. Pages
    must be in the tables."""
    counts = np.array([len(ids) for ids in tokens], np.int64)
    starts = np.array([chunk.start for chunk in chunks], np.int64)
    held = np.array([chunk.held for chunk in chunks], np.int64)
    slots = np.array([chunk.slot for chunk in chunks], np.int64)
    emitting = np.flatnonzero([chunk.emits for chunk in chunks])
    first_rows = np.cumsum(counts) - counts
    rows = int(counts.sum())
    multiple = 1 if computes(pool.storage.dtype, pool.storage.device) else ROW_MULTIPLE
    padded = rows + -rows % multiple

    offsets = np.arange(rows) - np.repeat(first_rows, counts)
    ids, positions = np.zeros(padded, np.int64), np.zeros(padded, np.int64)
    np.concatenate(tokens, out=ids[:rows], casting="same_kind" if tokens[0].dtype == np.int64 else "unsafe")
    positions[:rows] = offsets + np.repeat(starts, counts)
    slot_of_row = np.repeat(slots, counts)
    pages = tables.pages[slot_of_row, positions[:rows] // pool.page_size]
    pages = np.where(offsets < np.repeat(held, counts), pool.scratch, pages)
    written = np.full(padded, pool.scratch * pool.page_size, np.int64)
    written[:rows] = pages.astype(np.int64) * pool.page_size + positions[:rows] % pool.page_size

    last_rows = (first_rows + counts - 1)[emitting]
    wanted = np.zeros(len(emitting) + -len(emitting) % multiple, np.int64)
    wanted[: len(emitting)] = last_rows
    longest = -(-int((starts + counts).max()) // pool.page_size)
    device = pool.storage.device
    batch = Batch(
        tokens=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        slots=torch.from_numpy(written).to(device),
        attention=plan_attention(counts, starts, tables.pages[slots, :longest], pool.storage),
        logit_rows=torch.from_numpy(wanted).to(device),
    )
    return StepBatch(chunks, batch, first_rows, emitting)
