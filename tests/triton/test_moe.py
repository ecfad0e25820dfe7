"""Router, alignment, grouped products and combination in Triton's interpreter against the reference."""

import pytest
import torch

from kernels.reference import moe as reference
from kernels.triton import moe as under_test
from kernels.triton.moe import Config, align, config, moe, route


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(0, 8, 2), (1, 4, 1), (5, 8, 2), (7, 60, 8)])
@pytest.mark.parametrize("renormalise", [False, True])
def test_route(tokens, experts, top_k, renormalise) -> None:
    logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(1)) * 3
    weights, ids = route(logits, top_k, renormalise)
    expected, expected_ids = reference.route(logits, top_k, renormalise)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)


def test_route_takes_the_first_of_equals() -> None:
    assert route(torch.zeros(2, 5), 2, True)[1].tolist() == [[0, 1], [0, 1]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_route_of_nan_gives_experts() -> None:
    ids = route(torch.full((1, 6), float("nan")), 2, True)[1]
    assert bool(((ids >= 0) & (ids < 6)).all())


@pytest.mark.parametrize(
    ("tokens", "top_k", "count", "rows"), [(1, 1, 3, 16), (13, 3, 6, 16), (40, 2, 5, 16), (9, 8, 60, 32)]
)
def test_alignment_holds_each_pair_once(tokens, top_k, count, rows, monkeypatch) -> None:
    monkeypatch.setattr(under_test, "PAIR_BLOCK", 16)
    experts = torch.stack(
        [torch.randperm(count, generator=torch.Generator().manual_seed(i))[:top_k] for i in range(tokens)]
    ).int()
    pairs, tile_expert, tiles = align(experts, count, rows)
    used = int(tiles)
    assert used <= len(tile_expert)
    flat = experts.flatten()
    found = []
    for tile, expert in enumerate(tile_expert[:used].tolist()):
        inside = pairs[tile * rows : (tile + 1) * rows]
        real = inside[inside < tokens * top_k]
        assert len(real) > 0
        assert set(flat[real].tolist()) == {expert}
        found += real.tolist()
    assert sorted(found) == list(range(tokens * top_k))
    # In the order of the pairs within an expert: the same every time.
    assert found == sorted(found, key=lambda pair: (int(flat[pair]), pair))


@pytest.mark.parametrize(
    ("tokens", "hidden", "width", "count", "top_k"),
    [(0, 32, 32, 4, 2), (1, 32, 48, 4, 1), (5, 40, 24, 6, 3), (40, 64, 32, 3, 2)],
)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-5), (torch.float16, 4e-3)])
def test_moe(tokens, hidden, width, count, top_k, dtype, most, monkeypatch) -> None:
    monkeypatch.setattr(under_test, "CONFIGS", ((float("inf"), Config(16, 16, 32, 16, 4, 2)),))
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, hidden, generator=generator).to(dtype)
    gate_up = (torch.randn(count, 2 * width, hidden, generator=generator) / hidden**0.5).to(dtype)
    down = (torch.randn(count, hidden, width, generator=generator) / width**0.5).to(dtype)
    weights, experts = reference.route(torch.randn(tokens, count, generator=generator), top_k, True)
    expected = reference.moe(x.double(), gate_up.double(), down.double(), weights, experts)
    out = moe(x, gate_up, down, weights, experts)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=most, rtol=most)


def test_config_table() -> None:
    assert config(8, 128).rows == 16
    assert config(64 * 8, 128).rows == 16
    assert config(4096 * 8, 128).rows == 128
