"""Products of few rows in the interpreter (fp16), against float64."""

import pytest
import torch

from kernels.reference.rms_norm import rms_norm as rms_norm_reference
from kernels.triton.linear import Config, config, few_rows
from kernels.triton.rms_norm import rms_norm


def expected_of(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gated: bool) -> torch.Tensor:
    out = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    if gated:
        gate, up = out.chunk(2, 1)
        out = gate / (1 + (-gate).exp()) * up
    return out


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 64])
@pytest.mark.parametrize(
    ("width", "depth", "gated", "tile"),
    [
        (128, 256, True, Config(64, 64, 4)),
        (100, 128, True, Config(64, 64, 4)),
        (72, 384, False, Config(64, 128, 4)),
        (130, 640, False, Config(64, 128, 4, 2)),
    ],
)
def test_product(rows, width, depth, gated, tile) -> None:
    generator = torch.Generator().manual_seed(rows + width)
    weight = (torch.randn(width * (2 if gated else 1), depth, generator=generator) / depth**0.5).half()
    bias = None if gated else torch.randn(width, generator=generator).half()
    wide = torch.randn(rows, depth + 8, generator=generator).half()
    x = wide[:, :depth]
    out = few_rows(x, weight, bias, gated, tile)
    assert out.dtype == (torch.float32 if tile.parts > 1 else torch.float16)
    whole = out.double().sum(0) if tile.parts > 1 else out.double()
    torch.testing.assert_close(whole, expected_of(x, weight, bias, gated), atol=3e-3, rtol=1e-3)


def test_what_it_does_not_do() -> None:
    x, weight = torch.randn(2, 128).half(), torch.randn(64, 128).half()
    with pytest.raises(ValueError, match="gate"):
        few_rows(x, weight, torch.zeros(64).half(), True, Config(64, 64, 4))
    with pytest.raises(ValueError, match="multiple"):
        few_rows(torch.randn(2, 100).half(), torch.randn(64, 100).half(), None, False, Config(64, 128, 4))


def test_tiles() -> None:
    assert config(65, 4096, 4096, True, False) is None and config(0, 4096, 4096, True, False) is None
    assert config(1, 4096, 4000, False, True) is None  # no multiple of a tile
    assert config(1, 4096, 4096, False, True) == Config(64, 128, 4, 4)
    assert config(1, 4096, 4096, False, False) == Config(64, 128, 4, 1)  # nobody would sum parts up
    assert config(64, 4096, 14336, False, True) == Config(64, 128, 4, 2)
    assert config(64, 4096, 4096, False, True) is None
    assert config(1, 1024, 1024, False, True) == Config(64, 128, 4, 2)  # parts are not too short


def test_norm_sums_parts_up() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(3, 5, 96, generator=generator)
    weight = torch.randn(96, generator=generator).half()
    residual = torch.randn(5, 96, generator=generator).half()
    expected_residual = residual.clone()
    expected = rms_norm_reference(parts.sum(0).half(), weight, 1e-5, expected_residual)
    out = rms_norm(parts, weight, 1e-5, residual)
    assert out.shape == (5, 96) and out.dtype == torch.float16
    torch.testing.assert_close(residual, expected_residual, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(out, expected, atol=4e-3, rtol=4e-3)
