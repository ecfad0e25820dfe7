"""The C++ library's pass over a projected row (native/elementwise.h)."""

import torch

from kernels.cpu.library import Pool, RotateCall, call


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
) -> torch.Tensor:
    """See ``kernels.qk_norm_rope_kv_write.qk_norm_rope_kv_write``."""
    kv_heads, head_dim = pool.shape[3], pool.shape[5]
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    q = torch.empty(len(qkv), heads, head_dim)
    if len(qkv) == 0:
        return q
    qkv, cos, sin, slots = qkv.contiguous(), cos.contiguous(), sin.contiguous(), slots.contiguous()
    call(
        "banyan_rotate",
        RotateCall(
            qkv=qkv.data_ptr(),
            rows=len(qkv),
            heads=heads,
            cosine=cos.data_ptr(),
            sine=sin.data_ptr(),
            q_norm=None if q_weight is None else q_weight.data_ptr(),
            k_norm=None if k_weight is None else k_weight.data_ptr(),
            eps=eps,
            pool=Pool.of(pool),
            layer=layer,
            slots=slots.data_ptr(),
            q=q.data_ptr(),
        ),
    )
    return q
