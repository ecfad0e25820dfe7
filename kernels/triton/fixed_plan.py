"""Plans of steps whose memory and grids stay, so that launches over them can be captured in a CUDA graph."""

import numpy as np
import torch

from kernels.prefix_runs import prefix_runs
from kernels.triton.attention import AttentionPlan, Capacity, machine_of, make_plan
from kernels.triton.plan import Heads, WorkItems, plan_items

SPARE = 64
"""Narrow items beyond two per request, and an eighth of the partial results beyond 16 per request."""


class Scratch:
    """Memory that plans share, since layers and steps run one after another: partial results and outputs. It grows; a
    plan keeps what it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def take(self, name: str, rows: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """[at least rows, *shape] of finite values; always of the same shape for one ``name``."""
        held = self._held.get((name, dtype))
        if held is None or len(held) < rows:
            held = torch.zeros(1 << (rows - 1).bit_length(), *shape, dtype=dtype, device=self._device)
            self._held[name, dtype] = held
        return held


def step_items(
    counts: np.ndarray, starts: np.ndarray, block_tables: np.ndarray, pool: torch.Tensor, heads: int
) -> WorkItems:
    """Work items of a step; see ``kernels.paged_attention.plan_attention``."""
    kv_heads, page_size, head_dim = pool.shape[3:]
    shape = Heads(heads // kv_heads, kv_heads, head_dim, pool.element_size())
    return plan_items(counts, starts, prefix_runs(starts, block_tables, page_size), shape, machine_of(pool))


def decode_room(work: WorkItems, requests: int, table_width: int) -> Capacity:
    """A capacity for ``work`` that many other steps of up to ``requests`` with one token each have too: there are few
    different ones, each a graph. Starts and block tables are somebody else's. A kernel that ``work`` does not need has
    no room, and so no launch."""
    return Capacity(
        # Programs past the last item leave at once: room costs next to nothing.
        wide=_rounded(len(work.wide), 2 * requests),
        narrow=_rounded(len(work.narrow), 2 * requests + SPARE),
        merged=requests if len(work.merge_tokens) else 0,
        slots=_rounded(work.slots, 16 * requests + 8 * SPARE),
        requests=0,
        table_width=table_width,
        wide_rows=work.wide_rows,
        narrow_rows=work.narrow_rows,
    )


def chunk_room(work: WorkItems, table_width: int) -> Capacity:
    """As ``decode_room`` for steps with chunks of prompts."""
    return Capacity(
        wide=_rounded(len(work.wide), 16),
        narrow=_rounded(len(work.narrow), 2 * SPARE),
        merged=_rounded(len(work.merge_tokens), 2 * SPARE),
        slots=_rounded(work.slots, 16 * SPARE),
        requests=0,
        table_width=table_width,
        wide_rows=work.wide_rows,
        narrow_rows=work.narrow_rows,
    )


def _rounded(count: int, usual: int) -> int:
    return max(usual, 1 << (count - 1).bit_length()) if count else 0


def plan_with_room(
    pool: torch.Tensor,
    heads: int,
    rows: int,
    room: Capacity,
    starts: torch.Tensor,
    block_tables: torch.Tensor,
    scratch: Scratch,
) -> AttentionPlan:
    """A plan without items for steps of up to ``rows``; its buffer gets ``AttentionPlan.packed``. An item's request is
    a line of ``starts`` [lines] int32 and ``block_tables`` [lines, table_width] int32 on the device, which whoever made
    them keeps up to date."""
    nothing = np.zeros(0, np.int64)
    head_dim = pool.shape[5]
    partials = (
        scratch.take("partial", max(1, room.slots), heads, head_dim),
        scratch.take("partial lse", max(1, room.slots), heads),
    )
    plan = make_plan(nothing, nothing, np.zeros((0, 0), np.int32), pool, heads, capacity=room, partials=partials)
    plan.tables |= {"starts": starts, "tables": block_tables}
    return plan.into(scratch.take("output", rows, heads, head_dim, dtype=pool.dtype))
