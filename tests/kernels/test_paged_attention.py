"""The batched attention agrees with the float64 reference, and the reference with attention written out naively."""

import numpy as np
import pytest
import torch

from kernels.cpu.paged_attention import padded_widths
from kernels.kv_layout import as_stored
from kernels.paged_attention import paged_attention as as_it_lies
from kernels.paged_attention import plan_attention
from kernels.reference.paged_attention import paged_attention as reference

LAYERS = 2
# MKL on AVX-512 is where equality to the bit has been worked out; elsewhere results agree to rounding.
EXACT = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def paged_attention(q, pool, layer, plan, scale):
    """On a pool with keys [page_size, head_dim], whatever the kernels' layout is."""
    return as_it_lies(q, as_stored(pool), layer, plan, scale)


def make_case(counts, starts, heads, kv_heads, head_dim, page_size, dtype=torch.float32, seed=0):
    """Queries, a pool whose unused slots are huge, and shuffled block tables with wrong ids behind the last page."""
    rng = np.random.default_rng(seed)
    counts, starts = np.array(counts), np.array(starts)
    used = -(-(counts + starts) // page_size)
    pages = int(used.sum()) + 3
    ids = rng.permutation(pages)
    tables = np.full((len(counts), int(used.max()) + 1), pages - 1, np.int32)
    pool = torch.full((pages, LAYERS, 2, kv_heads, page_size, head_dim), 1e4, dtype=dtype)
    for item, n in enumerate(used):
        tables[item, :n], ids = ids[:n], ids[n:]
        for place, page in enumerate(tables[item, :n]):
            filled = min(page_size, int(counts[item] + starts[item]) - place * page_size)
            shape = (LAYERS, 2, kv_heads, filled, head_dim)
            pool[page, :, :, :, :filled] = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
    q = torch.from_numpy(rng.standard_normal((int(counts.sum()) + 2, heads, head_dim))).to(dtype)
    return counts, starts, tables, pool, q


def naive(q, pool, layer, counts, starts, tables, scale):
    """One query, one head, one key at a time, in float64."""
    page_size, group = pool.shape[4], q.shape[1] // pool.shape[3]
    out = torch.zeros(q.shape, dtype=torch.float64)
    row = 0
    for count, start, table in zip(counts, starts, tables, strict=True):
        for position in range(start, start + count):
            for head in range(q.shape[1]):
                slots = [(int(table[i // page_size]), i % page_size) for i in range(position + 1)]
                keys = torch.stack([pool[page, layer, 0, head // group, at] for page, at in slots]).double()
                values = torch.stack([pool[page, layer, 1, head // group, at] for page, at in slots]).double()
                out[row, head] = (keys @ q[row, head].double() * scale).softmax(0) @ values
            row += 1
    return out


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(1, 1, 64), (4, 2, 80), (3, 1, 128), (8, 2, 64), (7, 1, 80), (8, 1, 64)]
)
@pytest.mark.parametrize("page_size", [16, 5])
def test_irregular_items(heads, kv_heads, head_dim, page_size) -> None:
    counts = [1, 1, 0, page_size - 1, page_size, page_size + 1, 1, 1, 3, 2]
    starts = [0, page_size - 1, 4, 0, 0, 0, page_size, page_size + 1, 2 * page_size, page_size - 1]
    case = make_case(counts, starts, heads, kv_heads, head_dim, page_size)
    counts, starts, tables, pool, q = case
    scale = head_dim**-0.5
    plan = plan_attention(counts, starts, tables, pool)
    for layer in range(LAYERS):
        expected = naive(q, pool, layer, counts, starts, tables, scale)
        torch.testing.assert_close(
            reference(q, pool, layer, counts, starts, tables, scale).double(), expected, atol=1e-6, rtol=0
        )
        out = paged_attention(q, pool, layer, plan, scale)
        torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=0)
        assert not out[int(counts.sum()) :].any()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_long_items(dtype, most) -> None:
    """Lengths around the kernel's key blocks, decode rows of very different lengths, a chunk over a long prefix."""
    counts, starts = [1, 1, 1, 70, 1, 33, 1], [511, 512, 1300, 1030, 60, 200, 700]
    counts, starts, tables, pool, q = make_case(counts, starts, 6, 2, 64, 16, dtype)
    expected = reference(q, pool, 1, counts, starts, tables, 0.125)
    out = paged_attention(q, pool, 1, plan_attention(counts, starts, tables, pool), 0.125)
    torch.testing.assert_close(out, expected, atol=most, rtol=most)


def test_nothing_to_do() -> None:
    counts, starts, tables, pool, q = make_case([0, 0], [3, 0], 2, 1, 64, 4)
    assert not paged_attention(q, pool, 0, plan_attention(counts, starts, tables, pool), 1.0).any()


def test_another_requests_pages_do_not_matter() -> None:
    """Pages that an item does not own may even hold NaN."""
    counts, starts, tables, pool, q = make_case([1, 20], [70, 5], 2, 1, 64, 16)
    before = paged_attention(q, pool, 0, plan_attention(counts, starts, tables, pool), 0.1)
    own = set(tables[0, :5].tolist()) | set(tables[1, :2].tolist())
    for page in set(range(len(pool))) - own:
        pool[page] = float("nan")
    after = paged_attention(q, pool, 0, plan_attention(counts, starts, tables, pool), 0.1)
    assert torch.equal(before, after)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (6, 6, 32), (8, 2, 80), (7, 1, 128)])
@pytest.mark.parametrize("length", [1, 17, 64, 65, 193, 200, 321, 513, 777, 1300])
def test_a_token_is_the_same_alone_in_company_and_in_any_chunk(heads, kv_heads, head_dim, length) -> None:
    counts, starts, tables, pool, q = make_case([1, 1, 40], [1399, length - 1, 100], heads, kv_heads, head_dim, 16)
    company = paged_attention(q, pool, 0, plan_attention(counts, starts, tables, pool), 0.1)[1]
    for count in (1, 2, 3, 7, 8, 33, 64, 100, 200, 500):
        if count > length:
            continue
        queries = torch.cat([torch.randn(count - 1, heads, head_dim), q[1:2]])
        plan = plan_attention(np.array([count]), np.array([length - count]), tables[1:2], pool)
        alone = paged_attention(queries, pool, 0, plan, 0.1)[-1]
        torch.testing.assert_close(alone, company, atol=0 if EXACT else 1e-6, rtol=0)


def test_padded_widths() -> None:
    lengths = np.array([0, 1, 64, 65, 192, 193, 384, 449, 512, 513, 1024 + 193])
    assert padded_widths(lengths).tolist() == [0, 64, 64, 128, 192, 384, 384, 512, 512, 576, 1024 + 384]
