"""Reference of ``kernels.qk_norm_rope_kv_write``, with queries packed as on GPUs."""

import torch

from kernels.reference.kv_write import kv_write
from kernels.reference.rms_norm import rms_norm
from kernels.reference.rope import rope

LARGEST_E4M3 = 448.0


def qk_norm_rope_kv_write(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float,
    pool: torch.Tensor,
    layer: int,
    slots: torch.Tensor,
    *,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
) -> torch.Tensor:
    """See ``kernels.triton.rope.qk_norm_rope_kv_write``."""
    kv_heads, head_dim = pool.shape[3], pool.shape[5]
    tokens = len(qkv)
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    q, k, v = torch.split(qkv.view(tokens, heads + 2 * kv_heads, head_dim), [heads, kv_heads, kv_heads], dim=1)
    if q_weight is not None:
        q = rms_norm(q, q_weight, eps)
    if k_weight is not None:
        k = rms_norm(k, k_weight, eps)
    q = rope(q.float(), cos, sin).to(qkv.dtype)
    k = rope(k.float(), cos, sin).to(qkv.dtype)
    kv_write(pool, layer, stored(k, pool.dtype, k_scale), stored(v, pool.dtype, v_scale), slots)
    return q.view(tokens, kv_heads, heads // kv_heads, head_dim).transpose(0, 1).contiguous()


def stored(x: torch.Tensor, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """``x`` as it stands in the pool. Values outside the range of e4m3 become its largest; torch
    would make them NaN."""
    if dtype != torch.float8_e4m3fn:
        return x.to(dtype)
    return (x.float() * (1 / scale)).clamp_(-LARGEST_E4M3, LARGEST_E4M3).to(dtype)
