"""Keys and values in pages. Knows layout and sizes; which page is whose is the scheduler's business.

    [page, layer, 2 (K, V), kv_head, page_size, head_dim]

A page of all layers is one contiguous run, so it can be copied, offloaded or sent in one piece; a (page, layer, K or V,
head) block is a contiguous tile (of keys transposed where the CPU library computes: ``kernels.kv_layout``). One page
past the last belongs to nobody: writes that must go nowhere go there.
"""

import math

import numpy as np
import torch

from backend.errors import StartError
from backend.models.config import ModelConfig
from kernels.kv_layout import clear_slots

_ALIGNMENT = 64  # bytes, a cache line


def kv_bytes_per_page(config: ModelConfig, page_size: int, dtype: torch.dtype) -> int:
    """Bytes that one page of ``page_size`` tokens takes in all layers."""
    return config.layers * 2 * config.kv_heads * page_size * config.head_dim * dtype.itemsize


class KVPool:
    """The storage of ``pages`` pages and the scratch page. Page ids are 0 .. pages - 1."""

    def __init__(
        self, config: ModelConfig, pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        if pages < 1 or page_size < 1:
            raise StartError(f"KV pool: {pages} pages of {page_size} tokens", code="bad_kv_pool")
        shape = (pages + 1, config.layers, 2, config.kv_heads, page_size, config.head_dim)
        self.pages = pages
        self.page_size = page_size
        self.heads = config.heads  # that read the pages; a plan of attention is made for so many
        try:
            # Zeros, not empty: masked keys are multiplied by 0, and garbage can be NaN.
            self.storage = _zeros(shape, dtype, device)
        except (RuntimeError, MemoryError, ValueError) as error:
            need = (pages + 1) * kv_bytes_per_page(config, page_size, dtype)
            raise StartError(
                f"no room in memory for {pages} KV pages ({need / 1e6:,.0f} MB)", code="no_memory"
            ) from error

    @property
    def scratch(self) -> int:
        """Id of the page that belongs to nobody."""
        return self.pages

    @property
    def size_bytes(self) -> int:
        """Bytes of the storage, scratch page included."""
        return self.storage.numel() * self.storage.element_size()

    def clear(self, slots: torch.Tensor) -> None:
        """Zero the keys and values of ``slots`` [n] int64 (page * page_size + offset) in every layer."""
        clear_slots(self.storage, slots)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """On a CPU, zeros that the operating system makes when they are first used: ``torch.zeros`` writes them all, which
    for 4 GiB took longer than loading a small model, and made them resident."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[begin : begin + size]).view(dtype).view(shape)
