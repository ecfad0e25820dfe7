"""Causal attention of new tokens over paged keys and values, ragged over requests. Knows tensors only.

A step's shapes are the same in every layer, so the work is described once per step (``plan_attention``) and run once
per layer (``paged_attention``). Decode rows, prefill chunks and chunks over a cached prefix are one kind of item:
``count`` new tokens at positions ``start .. start + count - 1`` that see every key up to their own position.
"""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from kernels.cpu import paged_attention as gathering
from kernels.cpu import ragged_attention as native
from kernels.gpu import on_gpu
from kernels.kv_layout import keys_transposed
from kernels.prefix_runs import prefix_runs

if TYPE_CHECKING:
    from kernels.triton.attention import AttentionPlan as GpuPlan

AttentionPlan: TypeAlias = "gathering.CpuAttentionPlan | native.RaggedPlan | GpuPlan"


def plan_attention(
    counts: np.ndarray, starts: np.ndarray, block_tables: np.ndarray, pool: torch.Tensor, heads: int | None = None
) -> AttentionPlan:
    """Describe one step's attention. O(items + pages read) on the host.

    Items in ``kernels.prefix_runs.tree_order`` let the keys that several of them share be read once; in another order
    they are read once each.

    counts        [items] int: new tokens of each item; 0 is allowed and does nothing
    starts        [items] int: position of the item's first new token
    block_tables  [items, most pages] int: pages of each item in order; only the first
                  ``ceil((start + count) / page_size)`` entries of a row are read
    pool          [pages, layers, 2, kv_heads, page_size, head_dim], contiguous, laid out as ``kernels.kv_layout`` says
    heads         query heads; the GPU's plan needs the number, the CPU's do not
    """
    if on_gpu(pool):
        from kernels.triton.attention import make_plan

        if heads is None:
            raise ValueError("a plan for the GPU needs the number of query heads")
        runs = prefix_runs(starts, block_tables, pool.shape[4])
        return make_plan(counts, starts, block_tables, pool, heads, runs)
    if keys_transposed(pool):
        return native.RaggedPlan.make(counts, starts, block_tables, pool)
    return gathering.CpuAttentionPlan.make(counts, starts, block_tables, pool)


def paged_attention(q: torch.Tensor, pool: torch.Tensor, layer: int, plan: AttentionPlan, scale: float) -> torch.Tensor:
    """Softmax attention of one layer (grouped-query when there are fewer KV heads than heads).

    q      [tokens, heads, head_dim], on a GPU also packed as ``kernels.qk_norm_rope_kv_write`` returns it there,
           [kv_heads, tokens, heads / kv_heads, head_dim]: the items' tokens one after another, in the order of the
           plan; tokens after them are padding
    pool   as in ``plan_attention``, holding the keys and values of the new tokens too
    scale  factor on the scores

    Returns [tokens, heads, head_dim] in the dtype of ``q``; padding rows are 0. Head ``h`` reads KV head
    ``h // (heads / kv_heads)``. On the CPU a token's result depends on its own item only, and on this item's keys, not
    on how its tokens are split over calls: see ``kernels.cpu.paged_attention`` for what bitwise equality needs without
    the library, and ``kernels.triton.attention`` for GPUs. Where the library computes, ``q`` is float32 whatever the
    pool's dtype.
    """
    if isinstance(plan, native.RaggedPlan):
        if q.dtype != torch.float32:
            return native.paged_attention(q.float().contiguous(), pool, layer, plan, scale).to(q.dtype)
        return native.paged_attention(q.contiguous(), pool, layer, plan, scale)
    if isinstance(plan, gathering.CpuAttentionPlan):
        return gathering.paged_attention(q, pool, layer, plan, scale)
    from kernels.triton.attention import paged_attention as by_triton

    return by_triton(q, pool, layer, plan, scale)
