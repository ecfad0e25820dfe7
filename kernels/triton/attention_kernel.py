"""The kernel of paged attention: one tile of queries against one range of keys. Which tiles there are is decided in
``kernels.triton.plan``; partial results are put together in ``kernels.triton.merge``.

Online softmax over tiles of keys (FlashAttention, Dao et al. 2022) with the group of query heads that share a KV head
packed into the rows of a tile; partial results by key range (Flash-Decoding, Dao et al. 2023). Exponents are base 2.

Pages and pipelining: Triton only prefetches a load whose address does not hang on another load of the same iteration.
The page id of the next tile is therefore loaded one iteration ahead and carried; with the lookup in the loop the
compiler keeps a single K and a single V buffer whatever ``num_stages`` says.
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

SHARED_RANGE = tl.constexpr(1)
"""Bit of an item's flags: all keys of the range are visible to all its rows (rows of several requests)."""

# Where the running maximum starts: finite, so that a row without a visible key gives weights 0 and not NaN.
_LOWEST = tl.constexpr(-1.0e30)


@triton.jit
def _attend(
    acc,
    total,
    top,
    page,
    q,
    begin,
    end,
    kv,
    pool,
    page_rows,
    k_row,
    v_row,
    scales,
    page_scales,
    k_scale,
    v_scale,
    table,
    last_key,
    limit,
    base,
    tree,
    scale,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    KEYS: tl.constexpr,
    TMA: tl.constexpr,
    SCALED: tl.constexpr,
    MASKED: tl.constexpr,
    TREE: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take keys ``begin <= key < end`` into (acc, total, top). ``page`` is the page id (or, for pages smaller than a
    tile, the id per key) of the tile at ``begin``; returned is that of the tile at ``end``."""
    keys = tl.arange(0, KEYS)
    dims = tl.arange(0, LANES)
    for key in tl.range(begin, end, KEYS, num_stages=STAGES):
        here = page
        if KEYS <= PAGE:
            page = tl.load(table + tl.minimum(key + KEYS, last_key) // PAGE)
        else:
            page = tl.load(table + tl.minimum(key + KEYS + keys, last_key) // PAGE)
        if TMA:
            row = here * page_rows + key % PAGE
            k = kv.load([row + k_row, 0])
        else:
            if KEYS <= PAGE:
                rows = here.to(tl.int64) * page_rows + key % PAGE + keys
            else:
                rows = here.to(tl.int64) * page_rows + (key + keys) % PAGE
            at = pool + rows[:, None] * DIM + dims[None, :]
            if LANES == DIM:
                k = tl.load(at + k_row * DIM)
            else:
                k = tl.load(at + k_row * DIM, mask=(dims < DIM)[None, :], other=0.0)
        scores = tl.dot(q, k.to(q.dtype).T, input_precision=PRECISION)
        if SCALED:
            of_page = scales + here * page_scales
            if KEYS <= PAGE:
                scores = scores * (tl.load(of_page + k_scale) * scale)
            else:
                scores = scores * (tl.load(of_page + k_scale) * scale)[None, :]
        if MASKED:
            if not SCALED:
                scores = scores * scale
            seen = (key + keys)[None, :] <= limit[:, None]
            if TREE:
                place = key + keys - base
                bits = (tree[:, None] >> tl.minimum(tl.maximum(place, 0), 63)[None, :].to(tl.int64)) & 1
                seen = seen & ((place < 0)[None, :] | (bits != 0))
            scores = tl.where(seen, scores, float("-inf"))
            higher = tl.maximum(top, tl.max(scores, 1))
            weights = tl.math.exp2(scores - higher[:, None])
        elif SCALED:
            higher = tl.maximum(top, tl.max(scores, 1))
            weights = tl.math.exp2(scores - higher[:, None])
        else:
            higher = tl.maximum(top, tl.max(scores, 1) * scale)
            weights = tl.math.exp2(scores * scale - higher[:, None])
        shrink = tl.math.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        if TMA:
            v = kv.load([row + v_row, 0])
        elif LANES == DIM:
            v = tl.load(at + v_row * DIM)
        else:
            v = tl.load(at + v_row * DIM, mask=(dims < DIM)[None, :], other=0.0)
        if SCALED:
            if KEYS <= PAGE:
                weights = weights * tl.load(of_page + v_scale)
            else:
                weights = weights * tl.load(of_page + v_scale)[None, :]
        acc = tl.dot(weights.to(q.dtype), v.to(q.dtype), acc, input_precision=PRECISION)
        top = higher
    return acc, total, top, page


# The layer is not a reason to compile again.
@triton.jit(do_not_specialize=["layer", "layers", "table_width"])
def attention_kernel(
    q,
    kv,
    pool,
    scales,
    out,
    partial,
    partial_lse,
    items,
    n_items,
    starts,
    tables,
    tree_masks,
    layer,
    layers,
    table_width,
    scale,
    q_token,
    q_kv_head,
    q_head,
    out_token,
    out_head,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    TMA: tl.constexpr,
    KV_BITS: tl.constexpr,
    SCALED: tl.constexpr,
    TREE: tl.constexpr,
    TWO_LOOPS: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
    BESIDE: tl.constexpr,
):
    """One item and one KV head per program; grid (items * kv_heads,), larger grids are allowed.

    q            [tokens, heads, DIM] or packed [kv_heads, tokens, GROUP, DIM], by the strides q_token, q_kv_head and
                 q_head
    kv, pool     the pool [pages, layers, 2, KV_HEADS, PAGE, DIM] as descriptor of [rows, DIM] with boxes of
                 [KEYS, LANES] (TMA) or as pointer; values in memory must be finite, also behind an item's last key
    scales       [pages, layers, 2, KV_HEADS] fp32: what an fp8 value is multiplied by (SCALED)
    out          [tokens, heads, DIM] by strides; written by items without a slot
    partial      [slots, heads, DIM] fp32, partial_lse [slots, heads] fp32 in base 2, -inf where no key is visible
    items        [>= n_items, 8] int32, see ``kernels.triton.plan.ITEM_FIELDS``
    starts       [requests] int32: index of each request's first new key
    tables       [requests, table_width] int32
    tree_masks   [tokens] int64: bit i is 1 where the token sees its request's i-th new key (TREE)
    scale        factor on the scores times log2(e)
    EARLY        see ``kernels.triton.early``
    BESIDE       runs beside the kernel before it, and ends after it, so that what waits for this one waits for both
    """
    program = tl.program_id(0)
    item = program // KV_HEADS
    head = program % KV_HEADS
    fields = items + item * 8
    token0 = tl.load(fields)
    tokens = tl.load(fields + 1)
    request = tl.load(fields + 2)
    begin = tl.load(fields + 3)
    end = tl.load(fields + 4)
    offset = tl.load(fields + 5)
    slot = tl.load(fields + 6)
    flags = tl.load(fields + 7)
    base = tl.load(starts + request)
    shared = (flags & SHARED_RANGE) != 0
    end = tl.where(shared, end, tl.minimum(end, base + offset + tokens))
    # A grid may be larger than the number of items: programs without one take no keys and store no rows. No branches
    # here: with one around or before it, the loop is not split over warp groups.
    live = item < tl.load(n_items)
    tokens = tl.where(live, tokens, 0)
    end = tl.where(live, end, begin)
    table = tables + request.to(tl.int64) * table_width

    row = tl.arange(0, ROWS)
    token = token0 + row // GROUP
    group_head = row % GROUP
    dims = tl.arange(0, LANES)
    there = row < tokens * GROUP
    inside = there[:, None] & (dims < DIM)[None, :]
    if EARLY:
        if not BESIDE:
            gdc_wait()
        # Only now: what comes beside this kernel does not wait for the one before it.
        gdc_launch_dependents()
    q_at = q + head * q_kv_head + token.to(tl.int64) * q_token + group_head * q_head
    tile = tl.load(q_at[:, None] + dims[None, :], mask=inside, other=0.0)
    if KV_BITS == 8 and tile.dtype == tl.bfloat16:
        # 8-bit values become fp16 in one instruction, bf16 in four; fp16 is the more exact one besides.
        tile = tl.minimum(tl.maximum(tile.to(tl.float32), -65504.0), 65504.0).to(tl.float16)
    # The last key that a row may see. Rows of a shared range see all of it.
    limit = tl.minimum(tl.where(shared, end, base + offset + row // GROUP), end - 1)
    tree = tl.zeros([ROWS], tl.int64)
    if TREE:
        tree = tl.load(tree_masks + token, mask=there, other=0)

    page_rows = layers * (2 * KV_HEADS * PAGE)
    k_row = (layer * (2 * KV_HEADS) + head) * PAGE
    k_scale = layer * (2 * KV_HEADS) + head
    keys = tl.arange(0, KEYS)
    last_key = tl.maximum(end - 1, begin)
    if KEYS <= PAGE:
        page = tl.load(table + begin // PAGE)
    else:
        page = tl.load(table + tl.minimum(begin + keys, last_key) // PAGE)
    acc = tl.zeros([ROWS, LANES], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    top = tl.full([ROWS], _LOWEST, tl.float32)
    middle = begin
    if TWO_LOOPS:
        # Tiles of keys that every row sees need no mask.
        seen_by_all = tl.where(shared, end, tl.minimum(end, base if TREE else base + offset + 1))
        middle = begin + tl.maximum(seen_by_all - begin, 0) // KEYS * KEYS
        acc, total, top, page = _attend(
            acc,
            total,
            top,
            page,
            tile,
            begin,
            middle,
            kv,
            pool,
            page_rows,
            k_row,
            k_row + KV_HEADS * PAGE,
            scales,
            layers * (2 * KV_HEADS),
            k_scale,
            k_scale + KV_HEADS,
            table,
            last_key,
            limit,
            base,
            tree,
            scale,
            PAGE,
            DIM,
            LANES,
            KEYS,
            TMA,
            SCALED,
            False,
            False,
            PRECISION,
            STAGES,
        )
    acc, total, top, page = _attend(
        acc,
        total,
        top,
        page,
        tile,
        middle,
        end,
        kv,
        pool,
        page_rows,
        k_row,
        k_row + KV_HEADS * PAGE,
        scales,
        layers * (2 * KV_HEADS),
        k_scale,
        k_scale + KV_HEADS,
        table,
        last_key,
        limit,
        base,
        tree,
        scale,
        PAGE,
        DIM,
        LANES,
        KEYS,
        TMA,
        SCALED,
        True,
        TREE,
        PRECISION,
        STAGES,
    )
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    q_head_id = head * GROUP + group_head
    # Two masked stores, not two branches: the accumulator could not be split over warp groups through a branch.
    final = inside & (slot < 0)
    out_at = out + token.to(tl.int64) * out_token + q_head_id * out_head
    tl.store(out_at[:, None] + dims[None, :], result.to(out.dtype.element_ty), mask=final)
    partial_row = (slot + row // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + q_head_id
    tl.store(partial + partial_row[:, None] * DIM + dims[None, :], result, mask=inside & (slot >= 0))
    tl.store(partial_lse + partial_row, top + tl.math.log2(total), mask=there & (slot >= 0))
    if EARLY and BESIDE:
        gdc_wait()
