"""The C++ library in every variant that this CPU runs: against float64, and against itself to the bit."""

import numpy as np
import pytest
import torch

from kernels.cpu import build
from kernels.cpu import library as binding
from kernels.cpu.linear import quantize
from kernels.kv_layout import as_stored
from kernels.linear import embedding, linear, prepare
from kernels.paged_attention import paged_attention, plan_attention
from kernels.prefix_runs import prefix_runs, tree_order
from kernels.reference.paged_attention import paged_attention as reference
from kernels.reference.sample import LogitBias, Penalties
from kernels.reference.sample import sample as reference_sample
from kernels.sample import sample
from tests.kernels.test_paged_attention import make_case

pytestmark = pytest.mark.skipif(not binding.available(), reason="the library of CPU kernels was not built")


@pytest.fixture(params=["portable", "avx2", "avx512", "avx512vnni"])
def variant(request):
    """The library switched to one instruction set, and back."""
    found = binding.library()
    before = found.banyan_variant()
    if not found.banyan_use(request.param.encode()):
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    found.banyan_use(before)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("width", "depth", "gated"), [(1, 1, False), (40, 24, False), (72, 300, True), (200, 577, False)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(variant, kind, width, depth, gated, bias) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(width, depth, generator=generator) / depth**0.5
    offsets = torch.randn(width, generator=generator) if bias else None
    if kind == "bfloat16":
        weight = weight.bfloat16()
    ready = prepare(weight, offsets, gated, int8=kind == "int8")
    wide = weight.double()
    if kind == "int8":
        rounded, scale = quantize(weight)
        assert bool(((rounded.double() * scale.double()[:, None] - wide).abs() <= 0.501 * scale[:, None]).all())
        wide = rounded.double() * scale.double()[:, None]
    x = torch.randn(230, depth, generator=generator)
    expected = x.double() @ wide.T + (offsets.double() if bias else 0)
    if gated:
        gate, up = expected.chunk(2, 1)
        expected = gate / (1 + (-gate).exp()) * up
    whole = linear(x, ready)
    # Rows are rounded, too, for int8: to 15 bits of their largest number, or what sums of 32 bits leave.
    most = 4 * float(x.abs().max()) / min(32767, 2**31 / 127 / depth) if kind == "int8" else 0.0
    torch.testing.assert_close(whole.double(), expected, atol=2e-5 + most, rtol=1e-5)
    for rows in (0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 97):
        assert torch.equal(linear(x[:rows], ready), whole[:rows]), rows
    strided = torch.randn(7, depth + 9)[:, 3 : depth + 3]
    assert torch.equal(linear(strided, ready), linear(strided.contiguous(), ready))


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_embedding_reads_rows_of_the_packed_weight(variant, kind) -> None:
    weight = torch.randn(70, 24)
    if kind == "bfloat16":
        weight = weight.bfloat16()
    ready = prepare(weight, int8=kind == "int8")
    tokens = torch.tensor([0, 69, 5, 5, 17, 33])
    out = embedding(tokens, ready)
    torch.testing.assert_close(out, weight[tokens].float(), atol=0.02 if kind == "int8" else 0, rtol=0)
    with pytest.raises(IndexError, match="vocabulary of 70"):
        embedding(torch.tensor([70]), ready)


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="rows of 8 float32"):
        linear(torch.randn(2, 7), prepare(torch.randn(3, 8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(1, 1, 64), (4, 2, 80), (3, 1, 128), (16, 2, 18), (7, 1, 64), (9, 3, 64)]
)
def test_attention(variant, dtype, heads, kv_heads, head_dim) -> None:
    counts = [1, 1, 0, 63, 64, 65, 1, 130, 3, 1]
    starts = [0, 63, 4, 0, 0, 1, 64, 300, 127, 1000]
    counts, starts, tables, pool, q = make_case(counts, starts, heads, kv_heads, head_dim, 16, dtype)
    q = q.float()
    plan = plan_attention(counts, starts, tables, pool)
    expected = reference(q.double(), pool, 1, counts, starts, tables, head_dim**-0.5)
    out = paged_attention(q, as_stored(pool), 1, plan, head_dim**-0.5)
    torch.testing.assert_close(out.double(), expected, atol=3e-6, rtol=1e-5)
    assert not out[int(counts.sum()) :].any()


@pytest.mark.parametrize("page_size", [16, 24, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_runs_change_no_bit(variant, page_size, dtype) -> None:
    """A tree of four levels, decodes and chunks in it, beside strangers; then each of them alone."""
    rng = np.random.default_rng(5)
    heads, kv_heads, head_dim = 6, 2, 64
    levels = [(0, 0), (0, 1), (1, 2), (1, 2), (1, 3), (4, 5), (6, 7)]  # of the first two levels; later pages are own
    counts = np.array([1, 1, 1, 9, 1, 1, 70])
    starts = np.array([5, 5, 7, 6, 4, 3, 5]) * page_size + rng.integers(0, page_size, 7)
    tables = np.zeros((7, 16), np.int32)
    following = 100
    for item, (top, second) in enumerate(levels):
        tables[item, :4] = [10 * top, 10 * top + 1, 10 * second + 2, 10 * second + 3]
        tables[item, 4:] = range(following, following + 12)
        following += 12
    order = tree_order(tables)
    counts, starts, tables = counts[order], starts[order], tables[order]
    pool = torch.from_numpy(rng.standard_normal((following, 1, 2, kv_heads, page_size, head_dim))).to(dtype)
    q = torch.from_numpy(rng.standard_normal((int(counts.sum()), heads, head_dim))).float()
    plan = plan_attention(counts, starts, tables, pool)
    assert len(prefix_runs(starts, tables, page_size)) >= 3
    together = paged_attention(q, stored := as_stored(pool), 0, plan, 0.125)
    expected = reference(q.double(), pool, 0, counts, starts, tables, 0.125)
    torch.testing.assert_close(together.double(), expected, atol=3e-6, rtol=1e-5)
    first = 0
    for item, count in enumerate(counts.tolist()):
        alone = plan_attention(counts[item : item + 1], starts[item : item + 1], tables[item : item + 1], pool)
        rows = slice(first, first + count)
        assert torch.equal(paged_attention(q[rows], stored, 0, alone, 0.125), together[rows])
        first += count


def test_threads_change_no_bit() -> None:
    counts, starts, tables, pool, q = make_case([1, 40, 1], [300, 100, 17], 6, 2, 64, 16)
    weights = [prepare(torch.randn(300, 200), gated=int8, int8=int8) for int8 in (False, True)]
    x = torch.randn(433, 200)  # more than a block of rows
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            plan = plan_attention(counts, starts, tables, pool)
            results.append((*(linear(x, weight) for weight in weights), paged_attention(q, pool, 0, plan, 0.1)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, first) for one, first in zip(other, results[0], strict=True))


def test_scores_far_apart_and_large() -> None:
    """Softmax over scores of thousands neither overflows nor loses the largest."""
    counts, starts, tables, pool, q = make_case([1, 5], [200, 90], 2, 1, 64, 16)
    q = q * 1000
    out = paged_attention(q, as_stored(pool), 0, plan_attention(counts, starts, tables, pool), 1.0)
    expected = reference(q.double(), pool, 0, counts, starts, tables, 1.0)
    torch.testing.assert_close(out.double(), expected, atol=2e-3, rtol=1e-3)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("vocab", [1, 7, 1000, 1024, 5000, 33000])
@pytest.mark.parametrize("trial", range(4))
def test_draws_are_the_references_to_the_bit(variant, vocab, trial) -> None:
    """Greedy to hot, with and without each cut, equal logits, bias, penalties, masks."""
    generator = torch.Generator().manual_seed(vocab + trial)
    rows = 24

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    logits = torch.randn(rows, vocab, generator=generator) * [1, 5, 1, 20][trial]
    if trial == 2:
        logits = logits.round()
    more: dict = {"min_p": torch.tensor([0.0, 0.1, 0.5]).repeat(8) if trial % 2 else None}
    if trial >= 1:
        history = whole(0, 5, 30, vocab).to(torch.int16)
        slots = torch.randperm(30, generator=generator)[:rows]
        more["penalties"] = Penalties(history, slots, uniform(rows) + 0.8, uniform(rows), uniform(rows))
    if trial >= 2 and vocab >= 7:
        tokens = torch.stack([torch.randperm(vocab, generator=generator)[:4] for _ in range(rows)])
        tokens[0, 2:] = -1
        more["logit_bias"] = LogitBias(tokens, torch.randn(rows, 4, generator=generator) * 3)
    if trial == 3:
        more["bitmask"] = whole(-(2**31), 2**31 - 1, rows, -(-vocab // 32)).int()
        more["bitmask"][:, 0] |= 1
    told = {
        "temperature": torch.tensor([0.0, 0.7, 1.0, 1e-3, 5.0, 1e-35]).repeat(4),
        "top_k": torch.tensor([0, 1, 5, 50, 2000, 10**6]).repeat_interleave(4),
        "top_p": torch.tensor([1.0, 0.9, 0.5, 0.0, 0.999, 1.0, 0.3, 0.95]).repeat(3),
        "seed": whole(-(2**62), 2**62, rows),
        "position": torch.arange(rows),
    }
    before = logits.clone()
    assert torch.equal(sample(logits, **told, **more), reference_sample(logits, **told, **more))
    assert torch.equal(logits, before)


def test_without_a_compiler_there_is_a_warning_and_no_library(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "library.so")
    monkeypatch.setattr(build, "STAMP", tmp_path / "stamp")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build() is None
    assert "no C++ compiler was found" in capsys.readouterr().err
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho cannot compile this >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert build.build() is None
    assert "cannot compile this" in capsys.readouterr().err
    assert not (tmp_path / "library.so").exists()


def test_a_library_of_another_version_is_not_used(monkeypatch) -> None:
    binding.library.cache_clear()
    try:
        monkeypatch.setattr(binding, "VERSION", -1)
        assert not binding.available()
        binding.library.cache_clear()
        monkeypatch.undo()
        monkeypatch.setenv("BANYAN_NATIVE", "0")
        assert not binding.available()
    finally:
        monkeypatch.undo()
        binding.library.cache_clear()
    assert binding.available()


def test_what_a_former_owner_left_behind_the_last_key_does_not_matter(variant) -> None:
    """The rest of an item's own last page may hold anything, even what is not a number."""
    counts, starts, tables, pool, q = make_case([1, 5], [70, 20], 3, 1, 64, 16)
    plan = plan_attention(counts, starts, tables, pool)
    before = paged_attention(q, as_stored(pool), 0, plan, 0.1)
    for item, length in enumerate((counts + starts).tolist()):
        pool[tables[item, length // 16], :, :, :, length % 16 :] = float("nan")
    assert torch.equal(paged_attention(q, as_stored(pool), 0, plan, 0.1), before)
