"""How a page holds its keys: the one thing about the pool that depends on who computes.

A pool is [pages, layers, 2 (K, V), kv_heads, page_size, head_dim] for everybody. Where the CPU library computes, the
page_size * head_dim numbers of a tile of keys are stored transposed, [head_dim, page_size]: it multiplies queries with
sixteen keys at a time, and so reads pages as they lie. Tiles of values, sizes and whole pages are the same.
"""

import torch

from kernels.cpu.library import KV_KINDS, computes


def keys_transposed(pool: torch.Tensor) -> bool:
    """Whether this pool's tiles of keys are [head_dim, page_size]."""
    return pool.dtype in KV_KINDS and computes(pool.dtype, pool.device)


def clear_slots(pool: torch.Tensor, slots: torch.Tensor) -> None:
    """Zero the keys and values of ``slots`` [n] int64 (page * page_size + offset) in every layer, in place."""
    page_size, head_dim = pool.shape[4:]
    pages, offsets = slots // page_size, slots % page_size
    if keys_transposed(pool):
        tiles = pool[:, :, 0].view(*pool.shape[:2], pool.shape[3], head_dim, page_size)
        tiles[pages, :, :, :, offsets] = 0
        pool[pages, :, 1, :, offsets] = 0
    else:
        pool[pages, :, :, :, offsets] = 0


def as_stored(pool: torch.Tensor) -> torch.Tensor:
    """A copy of a pool with keys [page_size, head_dim] in the order that the kernels expect on this machine."""
    stored = pool.clone()
    if keys_transposed(pool):
        stored[:, :, 0] = pool[:, :, 0].transpose(-1, -2).reshape(pool[:, :, 0].shape)
    return stored


def as_plain(pool: torch.Tensor) -> torch.Tensor:
    """The inverse of ``as_stored``."""
    plain = pool.clone()
    if keys_transposed(pool):
        tiles = pool[:, :, 0].view(*pool.shape[:2], pool.shape[3], pool.shape[5], pool.shape[4])
        plain[:, :, 0] = tiles.transpose(-1, -2)
    return plain
