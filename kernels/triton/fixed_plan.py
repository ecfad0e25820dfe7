"""Plans of decode steps whose memory and grids stay, so that launches over them can be captured in a CUDA graph."""

import numpy as np
import torch

from kernels.prefix_runs import prefix_runs
from kernels.triton.attention import AttentionPlan, Capacity, machine_of, make_plan
from kernels.triton.plan import Heads, WorkItems, plan_items

SPARE = 64
"""Narrow items beyond two per request, and an eighth of the partial results beyond 16 per request."""


def decode_items(starts: np.ndarray, block_tables: np.ndarray, pool: torch.Tensor, heads: int) -> WorkItems:
    """Work items of a step with one new token per request; see ``kernels.paged_attention.plan_attention``."""
    kv_heads, page_size, head_dim = pool.shape[3:]
    shape = Heads(heads // kv_heads, kv_heads, head_dim, pool.element_size())
    runs = prefix_runs(starts, block_tables, page_size)
    return plan_items(np.ones(len(starts), np.int64), starts, runs, shape, machine_of(pool))


def room_for(work: WorkItems, requests: int, table_width: int) -> Capacity:
    """A capacity for ``work`` that many other steps of up to ``requests`` have too: there are few different ones, each
    a graph. Starts and block tables are somebody else's. A kernel that ``work`` does not need has no room, and so no
    launch."""

    def rounded(count: int, usual: int) -> int:
        return max(usual, 1 << (count - 1).bit_length()) if count else 0

    return Capacity(
        # Programs past the last item leave at once: room costs next to nothing.
        wide=rounded(len(work.wide), 2 * requests),
        narrow=rounded(len(work.narrow), 2 * requests + SPARE),
        merged=requests if len(work.merge_tokens) else 0,
        slots=rounded(work.slots, 16 * requests + 8 * SPARE),
        requests=0,
        table_width=table_width,
        wide_rows=work.wide_rows,
        narrow_rows=work.narrow_rows,
    )


def plan_with_room(
    pool: torch.Tensor, heads: int, room: Capacity, starts: torch.Tensor, block_tables: torch.Tensor
) -> AttentionPlan:
    """A plan without items; its buffer gets ``AttentionPlan.packed``. An item's request is a line of ``starts``
    [lines] int32 and ``block_tables`` [lines, table_width] int32 on the device, which whoever made them keeps up to
    date."""
    nothing = np.zeros(0, np.int64)
    plan = make_plan(nothing, nothing, np.zeros((0, 0), np.int32), pool, heads, capacity=room)
    plan.tables |= {"starts": starts, "tables": block_tables}
    return plan
