"""Norm, activation, rotation with KV write, and page copy against the references, on irregular shapes."""

import pytest
import torch

from kernels.reference.page_copy import page_copy as page_copy_reference
from kernels.reference.qk_norm_rope_kv_write import qk_norm_rope_kv_write as rope_reference
from kernels.reference.rms_norm import rms_norm as rms_norm_reference
from kernels.reference.rows_finite import rows_finite as rows_finite_reference
from kernels.reference.silu_and_mul import silu_and_mul as silu_and_mul_reference
from kernels.triton import page_copy as page_copy_module
from kernels.triton import rope as rope_module
from kernels.triton.page_copy import page_copy
from kernels.triton.rms_norm import rms_norm
from kernels.triton.rope import qk_norm_rope_kv_write
from kernels.triton.rows_finite import rows_finite
from kernels.triton.silu_and_mul import silu_and_mul

# At most one rounding of the dtype apart: where a float32 result lies near the middle of two numbers.
TOLERANCE = {torch.float32: {"atol": 2e-6, "rtol": 2e-6}, torch.float16: {"atol": 1e-3, "rtol": 2e-3}}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE))


def normal(*shape, dtype=torch.float32, seed=0):
    """Reproducible normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (3, 7), (5, 2, 80), (7, 576), (2, 1024)])
@pytest.mark.parametrize("with_residual", [False, True])
@DTYPES
def test_rms_norm(shape, with_residual, dtype) -> None:
    x, weight = normal(*shape, dtype=dtype), normal(shape[-1], dtype=dtype, seed=1)
    residual = normal(*shape, dtype=dtype, seed=2) if with_residual else None
    other = residual.clone() if with_residual else None
    kept = x.clone()
    out = rms_norm(x, weight, 1e-5, residual)
    torch.testing.assert_close(out, rms_norm_reference(x, weight, 1e-5, other), **TOLERANCE[dtype])
    assert torch.equal(x, kept)
    if with_residual:
        assert torch.equal(residual, other)


def test_rms_norm_of_a_slice_and_of_a_residual_that_cannot_be_changed() -> None:
    wide, weight = normal(4, 3, 16), normal(16, seed=1)
    torch.testing.assert_close(rms_norm(wide[:, 1:], weight, 1e-6), rms_norm_reference(wide[:, 1:], weight, 1e-6))
    with pytest.raises(ValueError, match="contiguous"):
        rms_norm(normal(4, 2, 16), weight, 1e-6, wide[:, 1:])


@pytest.mark.parametrize("shape", [(0, 6), (1, 2), (7, 33 * 2), (2, 3, 2200)])
@DTYPES
def test_silu_and_mul(shape, dtype) -> None:
    x = normal(*shape, dtype=dtype) * 3
    torch.testing.assert_close(silu_and_mul(x), silu_and_mul_reference(x), **TOLERANCE[dtype])


def rope_arguments(tokens, kv_heads, group, head_dim, dtype, pool_dtype, norm):
    """Everything but the layer; slots are distinct and in no order."""
    page_size, pages = 5, tokens // 5 + 3
    angles = normal(tokens, head_dim // 2, seed=1) * 50
    generator = torch.Generator().manual_seed(2)
    return {
        "qkv": normal(tokens, (group + 2) * kv_heads * head_dim, dtype=dtype) * 3,
        "cos": angles.cos(),
        "sin": angles.sin(),
        "q_weight": normal(head_dim, dtype=dtype, seed=3) if norm else None,
        "k_weight": normal(head_dim, dtype=dtype, seed=4) if norm else None,
        "eps": 1e-6,
        "pool": normal(pages, 2, 2, kv_heads, page_size, head_dim, seed=5).to(pool_dtype),
        "slots": torch.randperm(pages * page_size, generator=generator)[:tokens],
    }


@pytest.mark.parametrize(
    ("tokens", "kv_heads", "group", "head_dim", "norm", "block"),
    [
        (0, 2, 1, 64, True, 4),
        (1, 1, 1, 64, False, 1),
        (5, 2, 2, 80, True, 4),
        (9, 1, 3, 128, True, 4),
        (3, 3, 4, 64, False, 2),
        (6, 2, 7, 128, True, 4),
        (7, 1, 8, 16, False, 4),
    ],
)
@DTYPES
def test_rope_norm_and_write(tokens, kv_heads, group, head_dim, norm, block, dtype, monkeypatch) -> None:
    monkeypatch.setattr(rope_module, "tokens_per_program", lambda tokens, kv_heads: block)
    arguments = rope_arguments(tokens, kv_heads, group, head_dim, dtype, dtype, norm)
    expected_pool = arguments["pool"].clone()
    expected = rope_reference(**{**arguments, "pool": expected_pool}, layer=1)
    out = qk_norm_rope_kv_write(**arguments, layer=1)
    assert out.shape == (kv_heads, tokens, group, head_dim)
    tolerance = {"atol": 2e-5, "rtol": 2e-6} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 2e-3}
    torch.testing.assert_close(out, expected, **tolerance)
    torch.testing.assert_close(arguments["pool"], expected_pool, **tolerance)
    # Nothing but the slots of this layer was touched.
    slots = arguments["slots"]
    for pool in (arguments["pool"], expected_pool):
        pool[slots // 5, 1, :, :, slots % 5] = 0
    assert torch.equal(arguments["pool"], expected_pool)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_rope_into_an_8_bit_pool(scale) -> None:
    arguments = rope_arguments(6, 2, 2, 64, torch.float32, torch.float8_e4m3fn, True)
    expected_pool = arguments["pool"].clone()
    rope_reference(**{**arguments, "pool": expected_pool}, layer=0, k_scale=scale, v_scale=2 * scale)
    qk_norm_rope_kv_write(**arguments, layer=0, k_scale=scale, v_scale=2 * scale)
    pool, expected = arguments["pool"].float(), expected_pool.float()
    assert bool(pool.isfinite().all())
    # The interpreter's rounding to 8 bits may be a step off, and it loses the carry into the exponent (1.97 -> 1).
    carried = torch.frexp(expected).mantissa.abs() == 0.5
    torch.testing.assert_close(pool[~carried], expected[~carried], atol=2**-8, rtol=0.13)
    if scale < 1:
        assert float(pool.abs().max()) == 448


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("pairs", [[], [(3, 0)], [(1, 4), (1, 2), (5, 0)]])
def test_page_copy(dtype, pairs, monkeypatch) -> None:
    monkeypatch.setattr(page_copy_module, "BLOCK", 64)
    pool = normal(6, 2, 2, 3, 4, 8).to(dtype)
    expected = pool.clone()
    source = torch.tensor([pair[0] for pair in pairs], dtype=torch.int64)
    target = torch.tensor([pair[1] for pair in pairs], dtype=torch.int64)
    page_copy_reference(expected, source, target)
    page_copy(pool, source, target)
    assert torch.equal(pool.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize(("rows", "width"), [(0, 8), (1, 1), (6, 576), (6, 4097)])
@DTYPES
def test_rows_finite(rows, width, dtype) -> None:
    x = normal(rows, width + 3, dtype=dtype)[:, :width]
    for row, value in enumerate([0.0, float("inf"), float("nan"), float("-inf"), 1e4][:rows]):
        x[row, -1] = value
    found = rows_finite(x)
    assert found.dtype == torch.bool
    assert found.tolist() == [True, False, False, False, True, True][:rows] == rows_finite_reference(x).tolist()


def test_a_row_whose_sum_is_too_large_is_not_finite() -> None:
    x = torch.tensor([[3e38, 3e38], [3e38, -3e38]])
    assert rows_finite(x).tolist() == rows_finite_reference(x).tolist() == [False, True]
