"""The C++ library's paged attention (native/attention.h): a step's items as they are, and the runs that they share.

To the bit, a token's result depends on its own keys only: not on the batch, on how its tokens are cut into chunks, on
what is shared, or on the number of threads.
"""

from dataclasses import dataclass

import numpy as np
import torch

from kernels.cpu.library import AttentionCall, Pool, call
from kernels.prefix_runs import prefix_runs


@dataclass(frozen=True)
class RaggedPlan:
    """One step's items. counts, starts [items] int64; tables [items, pages] int32; runs [runs, 4] int64."""

    counts: np.ndarray
    starts: np.ndarray
    tables: np.ndarray
    runs: np.ndarray

    @staticmethod
    def make(counts: np.ndarray, starts: np.ndarray, block_tables: np.ndarray, pool: torch.Tensor) -> "RaggedPlan":
        """See ``kernels.paged_attention.plan_attention``."""
        starts = np.ascontiguousarray(starts, np.int64)
        tables = np.ascontiguousarray(block_tables, np.int32)
        found = [(run.first, run.count, run.begin, run.end) for run in prefix_runs(starts, tables, pool.shape[4])]
        runs = np.array(found, np.int64).reshape(-1, 4)
        return RaggedPlan(np.ascontiguousarray(counts, np.int64), starts, tables, runs)

    @property
    def tokens(self) -> int:
        """New tokens of all items."""
        return int(self.counts.sum())

    def call(self, pool: torch.Tensor, heads: int, scale: float) -> AttentionCall:
        """The library's call, without queries, output and layer."""
        return AttentionCall(
            heads=heads,
            pool=Pool.of(pool),
            items=len(self.counts),
            counts=self.counts.ctypes.data,
            starts=self.starts.ctypes.data,
            tables=self.tables.ctypes.data,
            table_stride=self.tables.shape[1],
            runs=self.runs.ctypes.data,
            run_count=len(self.runs),
            scale=scale,
        )


def paged_attention(q: torch.Tensor, pool: torch.Tensor, layer: int, plan: RaggedPlan, scale: float) -> torch.Tensor:
    """See ``kernels.paged_attention.paged_attention``; q contiguous float32, pool float32 or bfloat16."""
    out = torch.empty_like(q)
    out[plan.tokens :] = 0
    if plan.tokens:
        told = plan.call(pool, q.shape[1], scale)
        told.q, told.out, told.layer = q.data_ptr(), out.data_ptr(), layer
        call("banyan_attention", told)
    return out
