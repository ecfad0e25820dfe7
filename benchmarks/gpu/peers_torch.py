"""Attention that torch brings: over keys that lie in one piece, and paged in flex_attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.cases import Step

Layer = Callable[[int], torch.Tensor]


def contiguous(step: Step) -> Layer:
    """``scaled_dot_product_attention`` for one token of each of equally long requests, whose keys are gathered once."""
    case = step.case
    requests, keys = len(case.counts), case.starts[0] + 1
    q = step.q.unsqueeze(2)
    tables = torch.from_numpy(step.tables).long().to(step.q.device)

    def gathered(layer: int, which: int) -> torch.Tensor:
        pages = step.pool[:, layer, which][tables]  # [requests, pages, kv_heads, page, head_dim]
        return pages.transpose(1, 2).reshape(requests, case.kv_heads, -1, case.head_dim)[:, :, :keys].contiguous()

    kv = [(gathered(layer, 0), gathered(layer, 1)) for layer in range(step.layers)]
    return lambda layer: scaled_dot_product_attention(q, *kv[layer], enable_gqa=True).squeeze(2)


def flex_paged(step: Step) -> Layer:
    """Compiled ``flex_attention`` for one token of each request. All pages are one batch of keys; a mask of blocks says
    which of them a request has, whole ones without looking at single keys."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    case, device = step.case, step.q.device
    size, pages = case.page_size, step.pool.shape[0]
    lengths = torch.from_numpy(step.counts + step.starts).to(device)
    tables = torch.from_numpy(step.tables).to(device)
    whole = (lengths // size).int()
    indices = torch.zeros(len(case.counts), 1, 1, pages, dtype=torch.int32, device=device)
    indices[:, 0, 0, : tables.shape[1]] = tables
    last = torch.zeros_like(indices)
    at = whole.long().clamp(max=tables.shape[1] - 1)
    last[:, 0, 0, 0] = tables.gather(1, at[:, None])[:, 0]
    begun = (lengths % size > 0).int()
    row, column = (torch.arange(tables.shape[1], device=device) * size < lengths[:, None]).nonzero(as_tuple=True)
    place = torch.full(
        (len(case.counts), pages), tables.shape[1], dtype=torch.int64, device=device
    )  # not there: too far
    place[row, tables[row, column].long()] = column

    def seen(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return place[b, j // size] * size + j % size < lengths[b]

    mask = BlockMask.from_kv_blocks(
        begun[:, None, None],
        last,
        whole[:, None, None],
        indices,
        BLOCK_SIZE=(128, size),
        mask_mod=seen,
        seq_lengths=(1, pages * size),
    )
    kv = [
        [
            step.pool[:, layer, which].transpose(0, 1).reshape(1, case.kv_heads, -1, case.head_dim).contiguous()
            for which in (0, 1)
        ]
        for layer in range(step.layers)
    ]
    q = step.q.unsqueeze(2)
    # What is not compiled computes all scores, which is all right for the few keys of a dry run.
    flex: Any = torch.compile(flex_attention, dynamic=False) if step.q.is_cuda else flex_attention
    return lambda layer: flex(q, *kv[layer], block_mask=mask, enable_gqa=True).squeeze(2)
