"""From the fused projection to attention in one launch: QK-norm, rotation, write of keys and values, packing of Q.

Bound by memory: everything is read once and written once. A program handles a few tokens of one KV head with its query
heads. Both halves of a head are loaded separately, so that a pair to be rotated is in one thread.
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.triton import early

LARGEST_E4M3 = tl.constexpr(448.0)


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
    """Norm and rotate queries and keys, store keys and values in their slots (in place), return the queries packed.

    qkv       [tokens, (heads + 2 * kv_heads) * head_dim], contiguous: query heads, key heads, value heads
    cos, sin  [tokens, head_dim / 2] float32 (or rounded to the dtype of ``qkv``): each pair (i, i + head_dim / 2)
              of a head is turned by its angle, as in ``kernels.reference.rope``
    q_weight  [head_dim] in the dtype of ``qkv``: RMS norm of each query head before the rotation; None: no norm
    k_weight  as ``q_weight``, for the key heads
    pool      [pages, layers, 2, kv_heads, page_size, head_dim], contiguous; the dtype of ``qkv``, or float8_e4m3fn
    slots     [tokens] int64: page * page_size + offset
    k_scale   with an 8-bit pool: keys are divided by it, then limited to the range of the dtype; ``v_scale`` likewise

    Returns [kv_heads, tokens, heads / kv_heads, head_dim] in the dtype of ``qkv``: the rows of one KV head are
    contiguous, so a tile of rows holds whole query groups. Rotation in float32; results are rounded to the dtype of
    ``qkv`` after the norm, after its weight and at the end.
    """
    kv_heads, page_size, head_dim = pool.shape[3:]
    tokens = len(qkv)
    group = qkv.shape[1] // head_dim // kv_heads - 2
    q = torch.empty(kv_heads, tokens, group, head_dim, dtype=qkv.dtype, device=qkv.device)
    if tokens == 0:
        return q
    block = tokens_per_program(tokens, kv_heads)
    group_block, half_block = triton.next_power_of_2(group), triton.next_power_of_2(head_dim // 2)
    _qk_norm_rope_kv_write[(triton.cdiv(tokens, block), kv_heads)](
        qkv, cos, sin, q_weight, k_weight, pool, slots, q,
        eps, 1 / k_scale, 1 / v_scale, layer, tokens, pool.stride(0), pool.stride(1),
        HAS_Q_NORM=q_weight is not None, HAS_K_NORM=k_weight is not None,
        KV_HEADS=kv_heads, GROUP=group, GROUP_BLOCK=group_block,
        PAGE_SIZE=page_size, HEAD_DIM=head_dim, HALF_BLOCK=half_block,
        TOKENS=block, num_warps=warps(block * group_block * half_block), **early.options(early.may(qkv)),
    )  # fmt: skip
    return q


def tokens_per_program(tokens: int, kv_heads: int) -> int:
    """Few tokens are spread over the whole chip; with many, a program has enough loads in flight."""
    programs = tokens * kv_heads
    return 1 if programs <= 512 else 2 if programs <= 2048 else 4


def warps(elements: int) -> int:
    """Warps for a tile of so many query pairs: eight a thread, so that loads have 16 bytes."""
    return min(max(elements // 256, 1), 8)


@triton.jit
def _normed(first, second, Weight, column, valid, eps, HEAD_DIM: tl.constexpr, DTYPE: tl.constexpr):
    """RMS norm of heads given as halves [rows, half], with the roundings of ``kernels.rms_norm``."""
    squares = tl.sum(first * first, 1) + tl.sum(second * second, 1)
    scale = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
    first_weight = tl.load(Weight + column, mask=valid, other=0.0).to(tl.float32)[None, :]
    second_weight = tl.load(Weight + HEAD_DIM // 2 + column, mask=valid, other=0.0).to(tl.float32)[None, :]
    first = ((first * scale).to(DTYPE).to(tl.float32) * first_weight).to(DTYPE).to(tl.float32)
    second = ((second * scale).to(DTYPE).to(tl.float32) * second_weight).to(DTYPE).to(tl.float32)
    return first, second


@triton.jit
def _stored(x, inverse_scale, RUN: tl.constexpr, POOL: tl.constexpr):
    """``x`` rounded to the run dtype, then as it stands in the pool."""
    x = x.to(RUN)
    if POOL == tl.float8e4nv:  # noqa: SIM300
        x = tl.minimum(tl.maximum(x.to(tl.float32) * inverse_scale, -LARGEST_E4M3), LARGEST_E4M3)
    return x.to(POOL)


# One compilation for all layers and batch sizes.
@triton.jit(do_not_specialize=["layer", "tokens"])
def _qk_norm_rope_kv_write(
    QKV, Cos, Sin, QWeight, KWeight, Pool, Slots, Q,
    eps, inverse_k_scale, inverse_v_scale, layer, tokens, page_stride, layer_stride,
    HAS_Q_NORM: tl.constexpr, HAS_K_NORM: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_BLOCK: tl.constexpr,
    PAGE_SIZE: tl.constexpr, HEAD_DIM: tl.constexpr, HALF_BLOCK: tl.constexpr,
    TOKENS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    HALF: tl.constexpr = HEAD_DIM // 2
    WIDTH: tl.constexpr = (GROUP + 2) * KV_HEADS * HEAD_DIM
    RUN: tl.constexpr = QKV.dtype.element_ty
    kv_head = tl.program_id(1)
    column = tl.arange(0, HALF_BLOCK)
    inside = column < HALF

    # Queries: rows are (token, head of the group).
    row = tl.arange(0, TOKENS * GROUP_BLOCK)
    token = (tl.program_id(0) * TOKENS + row // GROUP_BLOCK).to(tl.int64)
    head = row % GROUP_BLOCK
    valid = ((token < tokens) & (head < GROUP))[:, None] & inside[None, :]
    source = QKV + (token * WIDTH + (kv_head * GROUP + head) * HEAD_DIM)[:, None] + column[None, :]
    angle = (token * HALF)[:, None] + column[None, :]
    cos = tl.load(Cos + angle, mask=valid, other=0.0).to(tl.float32)
    sin = tl.load(Sin + angle, mask=valid, other=0.0).to(tl.float32)
    first = tl.load(source, mask=valid, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=valid, other=0.0).to(tl.float32)
    if HAS_Q_NORM:
        first, second = _normed(first, second, QWeight, column, inside, eps, HEAD_DIM, RUN)
    target = Q + (((kv_head * tokens + token) * GROUP + head) * HEAD_DIM)[:, None] + column[None, :]
    tl.store(target, (first * cos - second * sin).to(RUN), mask=valid)
    tl.store(target + HALF, (second * cos + first * sin).to(RUN), mask=valid)

    # Keys and values: rows are tokens.
    token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    valid = (token < tokens)[:, None] & inside[None, :]
    slot = tl.load(Slots + token, mask=token < tokens, other=0)
    page = slot // PAGE_SIZE
    place = page * page_stride + layer * layer_stride + (kv_head * PAGE_SIZE + slot - page * PAGE_SIZE) * HEAD_DIM
    target = Pool + place[:, None] + column[None, :]
    source = QKV + (token * WIDTH + (GROUP * KV_HEADS + kv_head) * HEAD_DIM)[:, None] + column[None, :]
    angle = (token * HALF)[:, None] + column[None, :]
    cos = tl.load(Cos + angle, mask=valid, other=0.0).to(tl.float32)
    sin = tl.load(Sin + angle, mask=valid, other=0.0).to(tl.float32)
    first = tl.load(source, mask=valid, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=valid, other=0.0).to(tl.float32)
    value_first = tl.load(source + KV_HEADS * HEAD_DIM, mask=valid, other=0.0)
    value_second = tl.load(source + KV_HEADS * HEAD_DIM + HALF, mask=valid, other=0.0)
    if HAS_K_NORM:
        first, second = _normed(first, second, KWeight, column, inside, eps, HEAD_DIM, RUN)
    POOL: tl.constexpr = Pool.dtype.element_ty
    tl.store(target, _stored(first * cos - second * sin, inverse_k_scale, RUN, POOL), mask=valid)
    tl.store(target + HALF, _stored(second * cos + first * sin, inverse_k_scale, RUN, POOL), mask=valid)
    VALUES: tl.constexpr = KV_HEADS * PAGE_SIZE * HEAD_DIM  # from keys to values in the pool
    tl.store(target + VALUES, _stored(value_first, inverse_v_scale, RUN, POOL), mask=valid)
    tl.store(target + VALUES + HALF, _stored(value_second, inverse_v_scale, RUN, POOL), mask=valid)
