"""From the chunks of a plan to the rows of a forward pass. Knows block tables and slots; no scheduling, no sampling.

Tables are numpy, allocated once; a step fills and slices them, with one Python iteration per chunk and none per token.
"""

from dataclasses import dataclass

import numpy as np

from backend.engine.kv_pool import KVPool
from backend.engine.rows import StepRows
from backend.models.batch import Batch
from kernels.prefix_runs import tree_order
from scheduler.plan import Chunk


class BlockTables:
    """The pages of each slot, append-only while it is open."""

    def __init__(self, slots: int, pages_per_slot: int) -> None:
        self.pages = np.zeros((slots, pages_per_slot), np.int32)
        self.held = np.zeros(slots, np.int64)
        self.versions = np.zeros(slots, np.int64)  # how often each slot was reset

    def reset(self, slot: int) -> None:
        """Forget the slot's pages."""
        self.held[slot] = 0
        self.versions[slot] += 1

    def append(self, slot: int, pages: list[int]) -> None:
        """Add pages to the slot's row."""
        if pages:
            begin = int(self.held[slot])
            self.pages[slot, begin : begin + len(pages)] = pages
            self.held[slot] = begin + len(pages)


@dataclass(frozen=True)
class StepBatch:
    """A batch on the device and which of its rows belong to whom; ``first_rows`` and ``emitting`` as in ``StepRows``.

    chunks  as computed, in row order
    batch   the tensors of the pass, which the next step may write over
    slots   as in ``StepRows``
    """

    chunks: list[Chunk]
    batch: Batch
    slots: np.ndarray
    first_rows: np.ndarray
    emitting: np.ndarray


def in_tree_order(chunks: list[Chunk], tables: BlockTables) -> list[int]:
    """Indices of the chunks so that those with the same first pages are neighbours: what they share is read once."""
    if len(chunks) < 3:
        return list(range(len(chunks)))
    slots = [chunk.slot for chunk in chunks]
    return list(tree_order(tables.pages[slots, : int(tables.held[slots].max())]))


def step_rows(chunks: list[Chunk], tokens: list[np.ndarray], tables: BlockTables, pool: KVPool) -> StepRows:
    """Lay the chunks' tokens one after another, in the order given. ``tokens[i]``: [count] ids of ``chunks[i]``, whose
    first means nothing where it is the one that the slot drew last. Pages must be in the tables."""
    counts = np.array([len(ids) for ids in tokens], np.int64)
    starts = np.array([chunk.start for chunk in chunks], np.int64)
    chains = np.array([chunk.chain for chunk in chunks], bool)
    held = np.array([chunk.held for chunk in chunks], np.int64)
    slots = np.array([chunk.slot for chunk in chunks], np.int64)
    emitting = np.flatnonzero([chunk.emits for chunk in chunks])
    first_rows = np.cumsum(counts) - counts
    offsets = np.arange(int(counts.sum())) - np.repeat(first_rows, counts)
    positions = offsets + np.repeat(starts, counts)
    pages = tables.pages[np.repeat(slots, counts), positions // pool.page_size]
    pages = np.where(offsets < np.repeat(held, counts), pool.scratch, pages)
    feed = np.full(len(offsets), -1, np.int64)
    feed[first_rows[chains]] = slots[chains]
    longest = -(-int((starts + counts).max()) // pool.page_size)
    return StepRows(
        tokens=np.concatenate(tokens).astype(np.int64, copy=False),
        positions=positions,
        slots=pages.astype(np.int64) * pool.page_size + positions % pool.page_size,
        logit_rows=(first_rows + counts - 1)[emitting],
        counts=counts,
        starts=starts,
        tables=tables.pages[slots, :longest],
        first_rows=first_rows,
        emitting=emitting,
        feed=feed,
        owners=slots,
        versions=tables.versions[slots],
    )
