"""Norm, rotation, activation and KV write against float64 or a loop, on irregular shapes."""

import pytest
import torch

from kernels.cpu import library
from kernels.kv_layout import as_plain, as_stored, clear_slots
from kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write
from kernels.reference.kv_write import kv_write
from kernels.reference.rope import rope
from kernels.rms_norm import rms_norm
from kernels.rows_finite import rows_finite
from kernels.silu_and_mul import silu_and_mul


@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (3, 7), (5, 2, 80), (17, 576)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_rms_norm(shape, dtype, most) -> None:
    x, residual = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    weight = torch.randn(shape[-1]).to(dtype)

    def exact(value):
        return value * (value.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()

    kept = x.clone()
    torch.testing.assert_close(rms_norm(x, weight, 1e-5).double(), exact(x.double()), atol=most, rtol=most)
    assert torch.equal(x, kept)
    total = x + residual
    out = rms_norm(x, weight, 1e-5, residual)
    assert torch.equal(residual, total)
    torch.testing.assert_close(out.double(), exact(total.double()), atol=most, rtol=most)


def test_rms_norm_row_does_not_depend_on_others() -> None:
    x, weight = torch.randn(300, 576), torch.randn(576)
    whole = rms_norm(x, weight, 1e-5)
    for rows in (1, 2, 3, 4, 7, 64):
        assert torch.equal(rms_norm(x[:rows].clone(), weight, 1e-5), whole[:rows])


@pytest.mark.parametrize(("tokens", "heads", "head_dim"), [(0, 2, 4), (1, 1, 2), (5, 3, 80), (9, 7, 128)])
def test_rope_turns_each_pair(tokens, heads, head_dim) -> None:
    x = torch.randn(tokens, heads, head_dim)
    angles = torch.rand(tokens, head_dim // 2, dtype=torch.float64) * 100
    pairs = torch.complex(*x.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.cat([pairs.real, pairs.imag], dim=-1)
    out = rope(x, angles.cos().float(), angles.sin().float())
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)


def test_rope_reads_a_slice_of_a_fused_projection() -> None:
    fused = torch.randn(4, 5, 8)
    cos, sin = torch.randn(4, 4), torch.randn(4, 4)
    assert torch.equal(rope(fused[:, 1:4], cos, sin), rope(fused[:, 1:4].contiguous(), cos, sin))


@pytest.mark.parametrize("shape", [(0, 6), (1, 2), (7, 33 * 2)])
def test_silu_and_mul(shape) -> None:
    x = torch.randn(shape)
    gate, up = x.double().chunk(2, -1)
    torch.testing.assert_close(silu_and_mul(x).double(), gate / (1 + (-gate).exp()) * up, atol=1e-5, rtol=1e-5)


def test_kv_write_fills_exactly_its_slots() -> None:
    pool = torch.zeros(4, 3, 2, 2, 5, 8)
    slots = torch.tensor([0, 4, 5, 19, 7])
    key, value = torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    kv_write(pool, 1, key, value, slots)
    for i, slot in enumerate(slots.tolist()):
        page, offset = divmod(slot, 5)
        assert torch.equal(pool[page, 1, 0, :, offset], key[i])
        assert torch.equal(pool[page, 1, 1, :, offset], value[i])
    assert int((pool != 0).sum()) == 5 * 2 * 2 * 8


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(1, 1, 2), (3, 1, 80), (6, 2, 64), (7, 7, 18)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.08)])
def test_norm_rotation_and_write_in_one(native, normed, heads, kv_heads, head_dim, dtype, most, monkeypatch) -> None:
    """Against the parts in float64; what is not written stays."""
    if not native:
        monkeypatch.setattr(library, "library", lambda: None)
    page_size, tokens = 5, 9
    before = torch.randn(4, 3, 2, kv_heads, page_size, head_dim).to(dtype)
    pool = as_stored(before)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    if not native:
        qkv = qkv.to(dtype)
    cos, sin = (torch.randn(tokens, head_dim // 2).to(qkv.dtype) for _ in range(2))
    weights = [torch.randn(head_dim).to(qkv.dtype) if normed else None for _ in range(2)]
    slots = torch.tensor([0, 4, 5, 19, 7, 8, 9, 10, 11])
    query = qk_norm_rope_kv_write(qkv, cos, sin, *weights, 1e-5, pool, 1, slots)
    pool = as_plain(pool)

    exact = qkv.double().view(tokens, -1, head_dim).split([heads, kv_heads, kv_heads], dim=1)
    turned = []
    for part, weight in zip(exact, [*weights, None], strict=True):
        if weight is not None:
            part = part * (part.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
        turned.append(rope(part, cos.double(), sin.double()))
    torch.testing.assert_close(query.double(), turned[0], atol=most, rtol=most)
    pages, offsets = slots // page_size, slots % page_size
    torch.testing.assert_close(pool[pages, 1, 0, :, offsets].double(), turned[1], atol=most, rtol=most)
    torch.testing.assert_close(pool[pages, 1, 1, :, offsets].double(), exact[2], atol=most, rtol=most)
    pool[pages, 1, :, :, offsets] = before[pages, 1, :, :, offsets]
    assert torch.equal(pool, before)


@pytest.mark.parametrize("native", [True, False])
def test_cleared_slots_are_zero_and_others_stay(native, monkeypatch) -> None:
    if not native:
        monkeypatch.setattr(library, "library", lambda: None)
    before = torch.randn(4, 3, 2, 2, 5, 8)
    pool = as_stored(before)
    slots = torch.tensor([0, 4, 13])
    clear_slots(pool, slots)
    after = as_plain(pool)
    assert not after[slots // 5, :, :, :, slots % 5].any()
    before[slots // 5, :, :, :, slots % 5] = 0
    assert torch.equal(after, before)


@pytest.mark.parametrize(("rows", "width"), [(0, 8), (1, 1), (6, 576), (6, 4099)])
def test_rows_finite(rows, width) -> None:
    x = torch.randn(rows, width + 3)[:, :width]
    for row, value in enumerate([0.0, float("inf"), float("nan"), float("-inf"), 1e4][:rows]):
        x[row, -1] = value
    assert rows_finite(x).tolist() == [True, False, False, False, True, True][:rows]


def test_a_row_whose_sum_is_too_large_is_not_finite() -> None:
    x = torch.tensor([[3e38, 3e38], [3e38, -3e38]])
    assert rows_finite(x).tolist() == [False, True]
