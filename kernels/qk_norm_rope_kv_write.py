"""Between the projection and attention: a norm per head where the model has one, rotary positions, and the write of new
keys and values into the paged pool. One pass over the projected row. Knows tensors only."""

import torch

from kernels.cpu import rotate as native
from kernels.gpu import on_gpu
from kernels.kv_layout import keys_transposed
from kernels.reference.qk_norm_rope_kv_write import qk_norm_rope_kv_write as reference


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
    """Rotate queries and keys, each pair (i, i + head_dim/2) by its angle (Su et al. 2021, "RoFormer"; the half-split
    order of Hugging Face), and store keys and values.

    qkv        [tokens, (heads + 2 * kv_heads) * head_dim]: queries, keys, values
    cos, sin   [tokens, head_dim/2], the dtype of ``qkv``: of position times frequency, times the attention factor
    q_weight   [head_dim]: weight of an RMS norm of each query head before the rotation; None for none
    k_weight   as ``q_weight``, for keys
    pool       [pages, layers, 2, kv_heads, page_size, head_dim], contiguous, laid out as ``kernels.kv_layout`` says;
               changed in place in ``layer``
    slots      [tokens] int64: page * page_size + offset. A slot written twice in one call keeps either value

    Returns the queries in the layout that ``kernels.paged_attention`` of the same device reads: [tokens, heads,
    head_dim]; on a GPU packed, [kv_heads, tokens, heads / kv_heads, head_dim].
    """
    if on_gpu(qkv):
        from kernels.triton.rope import qk_norm_rope_kv_write as by_triton

        return by_triton(qkv, cos, sin, q_weight, k_weight, eps, pool, layer, slots)
    if keys_transposed(pool):
        return native.qk_norm_rope_kv_write(qkv, cos, sin, q_weight, k_weight, eps, pool, layer, slots)
    packed = reference(qkv, cos, sin, q_weight, k_weight, eps, pool, layer, slots)
    return packed.transpose(0, 1).reshape(len(qkv), -1, pool.shape[5]).contiguous()
