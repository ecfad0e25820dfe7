"""Paged attention by work items against the float64 reference, in Triton's interpreter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.prefix_runs import prefix_runs, tree_order
from kernels.reference.paged_attention import paged_attention as reference
from kernels.triton.attention import Capacity, make_plan, paged_attention
from kernels.triton.plan import Heads, Machine, plan_items
from tests.triton.forests import forests

LAYERS = 2
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3}
# Machines on which splitting, or sharing a few keys, pays.
TINY = Machine(sms=4, launch_us=0.0)
# Never splits narrow items, and shares whatever can be shared.
SHARING = Machine(
    launch_us=1e-9, copy_bytes_per_s=1e15, l2_bytes_per_s=1e12, matmul_flop_per_s=1e15, program_bytes_per_s=1e18
)


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


def check(case, runs=None, layer=1, machine=None, q=None, **options):
    """Compute and compare; returns the plan."""
    counts, starts, tables, pool, plain_q = case
    scale = pool.shape[-1] ** -0.5
    plan = make_plan(counts, starts, tables, pool, plain_q.shape[1], runs, machine=machine, **options)
    plan.partial.fill_(float("nan"))
    out = paged_attention(plain_q if q is None else q, pool, layer, plan, scale)
    expected = reference(plain_q, pool, layer, counts, starts, tables, scale)
    most = TOLERANCE[plain_q.dtype]
    torch.testing.assert_close(out.double(), expected.double(), atol=most, rtol=0)
    return plan


def make_forest(page_size, levels, own, heads, kv_heads, head_dim, dtype=torch.float32, count=1):
    """A tree of decodes: ``levels`` of (children, pages of each), ``own`` keys under each leaf. Returns a case and its
    runs."""
    paths = [[]]
    fresh = iter(range(10_000))
    for children, pages in levels:
        paths = [path + [next(fresh) for _ in range(pages)] for path in paths for _ in range(children)]
    whole = len(paths[0]) * page_size
    counts = np.full(len(paths), count)
    starts = whole + np.resize(own, len(paths))
    used = -(-(starts + counts) // page_size)
    tables = np.zeros((len(paths), int(used.max())), np.int32)
    for table, path, n in zip(tables, paths, used, strict=True):
        table[:n] = path + [next(fresh) for _ in range(n - len(path))]
    order = tree_order(tables)
    starts, tables = starts[order], tables[order]
    torch.manual_seed(0)
    pool = torch.randn(int(tables.max()) + 1, LAYERS, 2, kv_heads, page_size, head_dim).to(dtype)
    q = torch.randn(int(counts.sum()), heads, head_dim).to(dtype)
    return (counts, starts, tables, pool, q), prefix_runs(starts, tables, page_size)


@pytest.mark.parametrize("page_size", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lengths_around_a_page(page_size, dtype) -> None:
    counts = [1, 1, 0, 1, 1, 3]
    starts = [0, page_size - 2, 4, page_size - 1, page_size, page_size - 1]
    check(make_case(counts, starts, 4, 2, 64, page_size, dtype))


@pytest.mark.parametrize("group", [1, 2, 3, 4, 7, 8])
def test_groups(group) -> None:
    check(make_case([1, 2, 20], [30, 15, 3], group * 2, 2, 64, 16))


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("page_size", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_head_dims(head_dim, page_size, dtype) -> None:
    plan = check(make_case([1, 18], [70, 50], 4, 1, head_dim, page_size, dtype))
    assert plan.capacity.wide and plan.capacity.narrow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tiles_of_a_chunk(dtype) -> None:
    """A chunk longer than a tile, behind keys of earlier chunks, with two loops in fp16."""
    plan = check(make_case([75], [100], 4, 2, 64, 16, dtype), layer=0)
    assert plan.capacity.wide_rows == 64 and plan.capacity.wide == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_long_requests_are_split(dtype) -> None:
    plan = check(make_case([1, 1], [700, 20], 2, 1, 64, 64, dtype), machine=TINY)
    assert plan.capacity.merged == 1 and plan.capacity.slots == 4


def test_a_split_chunk() -> None:
    """Rows at the beginning of a tile see no key of its last part."""
    counts, starts = [64], [1008]
    case = make_case(counts, starts, 1, 1, 64, 64, torch.float16)
    plan = check(case, machine=Machine(sms=64, launch_us=0.0, matmul_flop_per_s=1e11))
    assert plan.capacity.merged == 64 and plan.capacity.slots >= 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("page_size", [16, 64])
def test_shared_runs_equal_plain(dtype, page_size) -> None:
    levels = [(1, 64 // page_size), (2, 128 // page_size), (2, 64 // page_size)]
    case, runs = make_forest(page_size, levels, [1, page_size - 1, page_size, 5], 2, 1, 64, dtype)
    assert len(runs) == 3
    plain = check(case, machine=replace(SHARING, launch_us=1e9))
    assert plain.capacity.merged == 0
    shared = check(case, runs, machine=SHARING)
    assert shared.capacity.merged == 4
    # three runs of 64 to 128 keys, each with a result per token
    assert shared.capacity.slots == 4 + 2 + 2 + 4


def test_a_wide_shared_run() -> None:
    """More rows than a narrow tile holds, next to a chunk that reads for itself."""
    case, runs = make_forest(16, [(1, 4), (20, 1)], [3, 9], 2, 1, 64)
    shared = check(case, runs, machine=SHARING)
    assert shared.capacity.wide == 1 and shared.capacity.merged == 20


@settings(max_examples=8)
@given(forests(), st.sampled_from([1, 3, 4]), st.sampled_from([SHARING, Machine(sms=2, launch_us=0.0)]))
def test_random_forests(forest, group, machine) -> None:
    """Decodes, drafts and chunks over any tree of pages, with and without sharing and splits."""
    counts, starts, tables, page_size = forest
    torch.manual_seed(0)
    pool = torch.randn(int(tables.max()) + 1, LAYERS, 2, 1, page_size, 64)
    q = torch.randn(int(counts.sum()), group, 64)
    check((counts, starts, tables, pool, q), prefix_runs(starts, tables, page_size), machine=machine)


def test_packed_queries() -> None:
    """[kv_heads, tokens, group, head_dim], as the rotation writes it."""
    case = make_case([1, 12], [30, 7], 6, 2, 64, 16)
    q = case[-1]
    packed = q.view(q.shape[0], 2, 3, 64).permute(1, 0, 2, 3).contiguous()
    check(case, q=packed)
    wide = torch.zeros(q.shape[0], 10, 64)
    wide[:, 2:8] = q
    check(case, q=wide[:, 2:8])


def test_the_same_bits_twice() -> None:
    case, runs = make_forest(16, [(1, 4), (3, 2)], [3, 70], 2, 1, 64, torch.float16)
    counts, starts, tables, pool, q = case
    results = [
        paged_attention(q, pool, 0, make_plan(counts, starts, tables, pool, 2, runs, machine=SHARING), 0.125)
        for _ in range(2)
    ]
    assert torch.equal(*results)


def tree_reference(q, pool, layer, counts, starts, tables, masks, scale):
    """A token sees the keys before the new ones and those of its mask."""
    page_size, group = pool.shape[4], q.shape[1] // pool.shape[3]
    out = torch.zeros(q.shape, dtype=torch.float64)
    token = 0
    for count, start, table in zip(counts, starts, tables, strict=True):
        for _ in range(count):
            keys = [*range(start), *(start + bit for bit in range(count) if int(masks[token]) >> bit & 1)]
            pages = torch.tensor([int(table[key // page_size]) for key in keys])
            kv = pool[pages, layer, :, :, torch.tensor(keys) % page_size].double()  # [keys, 2, kv_heads, head_dim]
            kv = kv.repeat_interleave(group, 2)
            scores = torch.einsum("hd,khd->hk", q[token].double(), kv[:, 0]) * scale
            out[token] = torch.einsum("hk,khd->hd", scores.softmax(1), kv[:, 1])
            token += 1
    return out


def random_tree_masks(counts) -> list[int]:
    """Each draft sees its ancestors and itself."""
    rng = np.random.default_rng(1)
    masks: list[int] = []
    for n in counts.tolist():
        own: list[int] = []
        for token in range(n):
            parent = int(rng.integers(token)) if token else -1
            own.append((own[parent] if token else 0) | 1 << token)
        masks += own
    return masks


def check_trees(case, runs=None, machine=None):
    """Compute and compare under random trees; returns the plan."""
    counts, starts, tables, pool, q = case
    masks = random_tree_masks(counts)
    tree = torch.from_numpy(np.array(masks, np.uint64).view(np.int64))
    plan = make_plan(counts, starts, tables, pool, q.shape[1], runs, tree_masks=tree, machine=machine)
    out = paged_attention(q, pool, 1, plan, 0.125)
    expected = tree_reference(q, pool, 1, counts, starts, tables, masks, 0.125)
    torch.testing.assert_close(out.double(), expected, atol=TOLERANCE[q.dtype], rtol=0)
    return plan


@pytest.mark.parametrize(("count", "dtype"), [(6, torch.float32), (6, torch.float16), (64, torch.float16)])
def test_draft_trees(count, dtype) -> None:
    check_trees(make_case([count, 1, 3], [60, 20, 0], 2, 1, 64, 16, dtype))


def test_draft_trees_under_a_shared_run_and_over_splits() -> None:
    case, runs = make_forest(16, [(1, 4), (3, 2)], [3, 300], 2, 1, 64, torch.float16, count=5)
    plan = check_trees(case, runs, replace(SHARING, sms=8))
    # one result of the shared run, one or two of each request's own keys
    assert plan.capacity.merged == 15 and plan.capacity.slots == 15 + 5 * (1 + 3 + 1)


def test_too_large_trees() -> None:
    counts, starts, tables, pool, _ = make_case([65], [3], 1, 1, 64, 16)
    with pytest.raises(ValueError, match="65 tokens"):
        make_plan(counts, starts, tables, pool, 1, tree_masks=torch.zeros(65, dtype=torch.int64))


@pytest.mark.parametrize(("page_size", "scaled"), [(16, True), (64, True), (64, False)])
def test_fp8(page_size, scaled) -> None:
    """With and without a scale per page and head."""
    counts, starts, tables, pool, q = make_case([1, 20], [90, 30], 4, 2, 64, page_size)
    pool = pool.clamp(-4, 4)
    scales = torch.rand(pool.shape[:4]) + 0.5 if scaled else torch.ones(pool.shape[:4])
    small = pool.to(torch.float8_e4m3fn)
    plan = make_plan(counts, starts, tables, small, 4)
    out = paged_attention(q.half(), small, 1, plan, 0.125, scales=scales if scaled else None)
    values = small.float() * scales[..., None, None]
    expected = reference(q.half().double(), values, 1, counts, starts, tables, 0.125)
    torch.testing.assert_close(out.double(), expected, atol=5e-3, rtol=0)


def test_growing_under_one_plan() -> None:
    """A plan stays right while its requests grow: only ``starts`` moves on."""
    counts, starts, tables, pool, q = make_case([1, 1], [40, 9], 2, 1, 64, 16)
    plan = make_plan(counts, starts - 5, tables, pool, 2)
    plan.tables["starts"][:2] += 5
    out = paged_attention(q, pool, 0, plan, 0.125)
    torch.testing.assert_close(out, reference(q, pool, 0, counts, starts, tables, 0.125), atol=3e-6, rtol=0)


def test_a_plan_with_room_is_refilled() -> None:
    """As in a CUDA graph: grids as large as the tables, memory that stays."""
    case, runs = make_forest(16, [(1, 4), (3, 2)], [3, 70], 2, 1, 64)
    counts, starts, tables, pool, q = case
    heads = Heads(2, 1, 64, 4)
    room = Capacity(wide=3, narrow=9, merged=4, slots=20, requests=4, table_width=tables.shape[1] + 1)
    assert room.wide_rows == 64 and room.narrow_rows == 32
    plan = make_plan(counts, starts, tables, pool, 2, runs, capacity=room, machine=SHARING)
    places = [plan.buffer.data_ptr(), plan.partial.data_ptr()]
    assert int(plan.tables["counts"][2]) == 3
    expected = reference(q, pool, 0, counts, starts, tables, 0.125)
    torch.testing.assert_close(paged_attention(q, pool, 0, plan, 0.125), expected, atol=3e-6, rtol=0)
    plan.refill(plan_items(counts[:2], starts[:2], [], heads), starts[:2], tables[:2])
    out = torch.full((3, 2, 64), 7.0)
    paged_attention(q, pool, 0, plan, 0.125, out=out)
    torch.testing.assert_close(out[:2], expected[:2], atol=3e-6, rtol=0)
    assert (out[2] == 7).all()
    assert places == [plan.buffer.data_ptr(), plan.partial.data_ptr()]
    with pytest.raises(ValueError, match="in a plan for"):
        plan.refill(plan_items(np.ones(5, int), np.ones(5, int), [], heads), np.ones(5, int), np.ones((5, 1), int))


def test_nothing_to_do() -> None:
    _, _, _, pool, q = make_case([1], [3], 2, 1, 64, 16)
    for requests in (0, 2):
        nothing = np.zeros(requests, int)
        plan = make_plan(nothing, nothing, np.zeros((requests, 0), np.int32), pool, 2)
        assert not paged_attention(q, pool, 0, plan, 0.125).any()
