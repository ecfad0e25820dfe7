"""Reference of ``kernels.paged_attention``: one item after another, keys gathered whole."""

import numpy as np
import torch


def paged_attention(
    q: torch.Tensor,
    pool: torch.Tensor,
    layer: int,
    counts: np.ndarray,
    starts: np.ndarray,
    block_tables: np.ndarray,
    scale: float,
) -> torch.Tensor:
    """See ``kernels.paged_attention``; the plan's arguments are given directly. Computes in float64."""
    kv_heads, page_size, head_dim = pool.shape[3:]
    out = torch.zeros_like(q)
    first = 0
    for count, start, table in zip(counts.tolist(), starts.tolist(), block_tables, strict=True):
        if count == 0:
            continue
        length = start + count
        pages = torch.from_numpy(table[: -(-length // page_size)].astype(np.int64))
        # [pages, 2, kv_heads, page_size, head_dim] -> [2, kv_heads, keys, head_dim]
        kv = pool[pages, layer].permute(1, 2, 0, 3, 4).reshape(2, kv_heads, -1, head_dim)[:, :, :length].double()
        group = q.shape[1] // kv_heads
        query = q[first : first + count].double().view(count, kv_heads, group, head_dim)
        scores = torch.einsum("tkgd,ksd->kgts", query, kv[0]) * scale
        hidden = torch.arange(length, device=q.device) > torch.arange(start, length, device=q.device)[:, None]
        weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
        out[first : first + count] = (
            torch.einsum("kgts,ksd->tkgd", weights, kv[1]).reshape(count, -1, head_dim).to(q.dtype)
        )
        first += count
    return out
