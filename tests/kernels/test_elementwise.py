"""Norm, rotation, activation and KV write against float64 or a loop, on irregular shapes."""

import pytest
import torch

from kernels.kv_write import kv_write
from kernels.rms_norm import rms_norm
from kernels.rope import rope
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
