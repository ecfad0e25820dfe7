"""Writing new keys and values into the paged pool. Knows tensors only; which slot is whose belongs to the engine."""

import torch

from kernels.reference.kv_write import kv_write as reference


def kv_write(pool: torch.Tensor, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    """Store one layer's keys and values of each token in its slot, in place.

    pool   [pages, layers, 2, kv_heads, page_size, head_dim], contiguous
    key    [tokens, kv_heads, head_dim], the dtype of ``pool``
    value  as ``key``
    slots  [tokens] int64: page * page_size + offset. A slot written twice in one call keeps either value
    """
    reference(pool, layer, key, value, slots)
