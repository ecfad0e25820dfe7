"""Reference of ``kernels.kv_write``."""

import torch


def kv_write(pool: torch.Tensor, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
    """See ``kernels.kv_write.kv_write``."""
    page_size = pool.shape[4]
    pages, offsets = slots // page_size, slots % page_size
    keys, values = pool[:, layer, 0], pool[:, layer, 1]
    keys[pages, :, offsets] = key
    values[pages, :, offsets] = value
