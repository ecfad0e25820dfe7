"""Results on the device against float64, and the same bits twice: what the interpreter and the compiler cannot show."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from backend.engine.graphs import Eager, StepGraphs, cuda_graphs
from backend.engine.kv_pool import KVPool
from backend.engine.rows import StepRows
from backend.models.decoder import Decoder
from benchmarks.gpu.attention import machine
from benchmarks.gpu.cases import FP8, Case, Step, block_tables, dry
from benchmarks.gpu.models import PAGE, Point, config_of, make_model
from benchmarks.gpu.stage import Bench
from kernels.reference import moe as moe_reference
from kernels.reference import sample as sample_reference
from kernels.reference.page_copy import page_copy as page_copy_reference
from kernels.reference.qk_norm_rope_kv_write import qk_norm_rope_kv_write as rope_reference
from kernels.reference.rms_norm import rms_norm as rms_norm_reference
from kernels.reference.silu_and_mul import silu_and_mul as silu_and_mul_reference
from kernels.reference.verify import verify as verify_reference
from kernels.triton import linear, moe
from kernels.triton.page_copy import page_copy
from kernels.triton.rms_norm import rms_norm
from kernels.triton.rope import qk_norm_rope_kv_write
from kernels.triton.rows_finite import rows_finite
from kernels.triton.sample import sample
from kernels.triton.silu_and_mul import silu_and_mul
from kernels.triton.verify import verify

FP16, FP32 = torch.float16, torch.float32
RAGGED: dict[str, Any] = {"counts": [1, 1, 1, 1, 5, 40, 1], "starts": [0, 62, 63, 64, 100, 30, 700]}
CASES = (
    *(Case(f"group {group}", **RAGGED, group=group, kv_heads=2) for group in (1, 2, 3, 4, 7, 8)),
    *(
        Case(f"head_dim {dim} pages of {page}", **RAGGED, kv_heads=2, head_dim=dim, page_size=page)
        for dim in (64, 80, 128)
        for page in (16, 64)
    ),
    Case("fp16", **RAGGED, dtype=FP16),
    Case("fp32", **RAGGED, dtype=FP32),
    Case("fp8", **RAGGED, kv_dtype=FP8),
    Case("fp8 pages of 16", **RAGGED, kv_dtype=FP8, page_size=16),
    Case("no tokens between", [1, 0, 1], [70, 9, 5]),
    Case("drafts", [6, 64, 1], [100, 70, 9], tree=True),
    Case("split", [1, 2], [9000, 100]),
    Case("split chunk", [64], [5000]),
    Case("chunk", [300], [500]),
    Case("shared", [1] * 24, [4096 + 9 * i for i in range(24)], levels=((1, 4096),)),
    Case("shared, group 7", [1] * 40, [2048 + 64] * 40, group=7, levels=((1, 2048),)),
    Case("four levels", [1] * 64, [1500 + i for i in range(64)], levels=((1, 512), (4, 448), (4, 320), (4, 192))),
    Case("shared and a chunk", [1] * 24 + [200], [4096 + 9 * i for i in range(25)], levels=((1, 4096),)),
)
# Relative errors (L2) that rounding of the result explains.
MOST = {torch.bfloat16: 4e-3, FP16: 6e-4, FP32: 2e-6}


def attention(bench: Bench) -> None:
    """Every kind of item. One broken case does not hide the others, unless it takes the device with it."""
    worst, broken = 0.0, 0
    cases = CASES[:: bench.pick(1, 2)]
    for case in cases:
        dtype = case.dtype or bench.dtype
        most = MOST[dtype]
        try:
            step = Step(dry(case, bench), 2, bench, machine=machine(bench))
            wrong, again = step.error()
            if case.levels:
                plain = Step(dry(case, bench), 2, bench, share=False)
                plain.pool, plain.q, plain.packed = step.pool, step.q, step.packed
                apart = (plain.run(1).double() - step.run(1).double()).norm() / step.out.double().norm()
                bench.table.at_most("T22", f"{case.name}, from plain", float(apart), 2e-3, detail=True)
            fine = wrong <= most and again
            remark = "" if again else ", other bits the second time"
        except torch.AcceleratorError:
            raise
        except Exception as error:
            wrong, fine, remark = float("nan"), False, f" {type(error).__name__} {' '.join(str(error).split())[:120]}"
        bench.table.at_most("T22", case.name, wrong, most, detail=True)
        worst, broken = max(worst, wrong / most), broken + (not fine)
        if not fine:
            print(f"  wrong: {case.name}: {wrong:.1e}{remark}", flush=True)
    bench.table.at_most("T22", "attention, worst / allowed", worst, 1.0)
    bench.table.true("T22", f"attention, {len(cases)} cases", broken == 0)


def rest(bench: Bench) -> None:
    """The other operations; draws must be the reference's tokens, to the bit."""
    for check in CHECKS:
        try:
            found = [bench.table.at_most("T22", *result, detail=True) for result in check(bench)]
            fine = sum(row.passed is True for row in found)
            bench.table.true("T22", f"{check.__name__.strip('_')}, {fine} of {len(found)}", fine == len(found))
        except torch.AcceleratorError:
            raise
        except Exception as error:
            print(f"  wrong: {check.__name__}: {type(error).__name__} {' '.join(str(error).split())[:200]}", flush=True)
            bench.table.true("T22", check.__name__.strip("_"), False)


Found = Iterator[tuple[str, float, float]]


def apart(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative distance (L2)."""
    expected = expected.double()
    return float((result.double() - expected).norm() / expected.norm())


def _rows(bench: Bench) -> Found:
    rows, width = bench.pick(333, 3), bench.pick(4096, 96)
    most = MOST[bench.dtype]
    x, residual = (torch.randn(rows, width, device=bench.device, dtype=bench.dtype) for _ in range(2))
    weight = torch.randn(width, device=bench.device, dtype=bench.dtype)
    expected_residual = residual.double()
    expected = rms_norm_reference(x.double(), weight.double(), 1e-5, expected_residual)
    out = rms_norm(x, weight, 1e-5, residual)
    yield "rms norm", apart(out, expected), most * 2
    yield "its residual", apart(residual, expected_residual), most
    gate_up = torch.randn(rows, 2 * width, device=bench.device, dtype=bench.dtype)
    yield "silu and mul", apart(silu_and_mul(gate_up), silu_and_mul_reference(gate_up.double())), most * 2
    gate_up[0, -1], gate_up[rows // 2, 0] = float("inf"), float("nan")
    yield "rows that are finite", float((rows_finite(gate_up) != gate_up.isfinite().all(-1)).sum()), 0.5


def _products(bench: Bench) -> Found:
    """Of few rows; sums of parts are taken by the norm that follows."""
    width, depth = bench.pick(4096, 128), bench.pick(4096, 1024)
    for gated, parts in ((True, False), (False, False), (False, True)):
        weight = (torch.randn(width, depth, device=bench.device) / depth**0.5).to(bench.dtype)
        for rows in (1, bench.pick(16, 2), bench.pick(64, 17)):
            tile = linear.config(rows, width // (2 if gated else 1), depth, gated, parts)
            if tile is None:
                continue
            x = torch.randn(rows, depth, device=bench.device).to(bench.dtype)
            out = linear.few_rows(x, weight, None, gated, tile)
            expected = x.double() @ weight.double().T
            if gated:
                gate, up = expected.chunk(2, 1)
                expected = gate * gate.sigmoid() * up
            yield f"product of {rows} rows", apart(out.sum(0) if tile.parts > 1 else out, expected), MOST[bench.dtype]


def _rope(bench: Bench) -> Found:
    tokens, kv_heads, page = bench.pick(200, 5), bench.pick(8, 2), bench.pick(64, 4)
    for group, head_dim, normed in ((4, 128, True), (7, 64, False), (2, 80, True)):
        half = head_dim // 2
        qkv = torch.randn(tokens, (group + 2) * kv_heads * head_dim, device=bench.device, dtype=bench.dtype)
        angle = torch.rand(tokens, half, device=bench.device) * 6
        cos, sin = angle.cos().to(bench.dtype), angle.sin().to(bench.dtype)
        weight = torch.randn(head_dim, device=bench.device, dtype=bench.dtype) if normed else None
        shape = (tokens, 2, 2, kv_heads, page, head_dim)
        pool = torch.zeros(shape, device=bench.device, dtype=bench.dtype)
        expected_pool = pool.clone()
        slots = torch.randperm(tokens * page)[:tokens].to(bench.device)
        told = (qkv, cos, sin, weight, weight, 1e-6)
        expected = rope_reference(*told, expected_pool, 1, slots)
        out = qk_norm_rope_kv_write(*told, pool, 1, slots)
        name = f"rope group {group} d{head_dim}"
        yield name, apart(out, expected), MOST[bench.dtype]
        yield f"{name}, pages", apart(pool, expected_pool), MOST[bench.dtype]


def settings(rows: int) -> dict[str, torch.Tensor]:
    """Sampling settings of every kind, in turn, on the CPU."""
    i = torch.arange(rows)
    return {
        "temperature": torch.tensor([1.0, 0.0, 0.7, 1.5])[i % 4],
        "top_k": torch.tensor([0, 50, 5, 0, 1000])[i % 5],
        "top_p": torch.tensor([1.0, 0.9, 0.5])[i % 3],
        "seed": i * 7919 - 3,
        "position": i * 3,
    }


def moved(arguments: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors on the device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}


def _draws(bench: Bench) -> Found:
    rows, vocab = bench.pick(32, 5), bench.pick(128256, 600)
    logits = torch.randn(rows, vocab) * 3
    given = {**settings(rows), "min_p": torch.tensor([0.0, 0.01])[torch.arange(rows) % 2]}
    given["bitmask"] = torch.randint(-(2**31), 2**31, (rows, -(-vocab // 32))).int()
    on_device = logits.to(bench.device)
    for name, dropped in (("plain", ("min_p", "bitmask")), ("mask and min_p", ())):
        told: dict[str, Any] = {k: v for k, v in given.items() if k not in dropped}
        expected = sample_reference.sample(logits, **told)
        told = moved(told, bench.device)
        drawn = sample(on_device, **told)
        yield f"draws, {name}: differing", float((drawn.cpu() != expected).sum()), 0
        order = torch.randperm(rows).to(bench.device)
        company = sample(on_device[order], **{k: v[order] for k, v in told.items()})
        yield f"draws, {name}: in other company", float((company != drawn[order]).sum()), 0


def _drafts(bench: Bench) -> Found:
    vocab = bench.pick(32000, 300)
    counts = [3, 0, 4, 2, 1, 7][: bench.pick(6, 3)]
    rows = sum(counts) + len(counts)
    logits = torch.randn(rows, vocab) * 3
    likely = torch.where(torch.rand(rows) < 0.7, logits.argmax(-1), torch.randint(0, vocab, (rows,)))
    given = {"first": torch.tensor([0, *[n + 1 for n in counts]]).cumsum(0), "draft": likely, **settings(len(counts))}
    for name, more in (
        ("drafts", {}),
        ("drafts with probabilities", {"draft_probabilities": (logits + torch.randn(rows, vocab)).softmax(-1)}),
    ):
        expected = verify_reference(logits, **given, **more)
        found = verify(**moved({"logits": logits, **given, **more}, bench.device))
        differing = (found.accepted.cpu() != expected.accepted) | (found.token.cpu() != expected.token)
        yield f"{name}: differing", float(differing.sum()), 0


def _experts(bench: Bench) -> Found:
    count, hidden, width, top_k = bench.pick(128, 4), bench.pick(1024, 32), bench.pick(256, 32), bench.pick(8, 2)
    gate_up = (torch.randn(count, 2 * width, hidden, device=bench.device) / hidden**0.5).to(bench.dtype)
    down = (torch.randn(count, hidden, width, device=bench.device) / width**0.5).to(bench.dtype)
    for tokens in (1, bench.pick(64, 3), *(() if bench.gpu.dry else (2000,))):
        x = torch.randn(tokens, hidden, device=bench.device, dtype=bench.dtype)
        logits = torch.randn(tokens, count, device=bench.device)
        weights, ids = moe.route(logits, top_k, True)
        expected_weights, expected_ids = moe_reference.route(logits, top_k, True)
        yield f"experts of {tokens} tokens: differing", float((ids != expected_ids).sum()), 0
        yield "their weights", apart(weights, expected_weights), 1e-5
        expected = moe_reference.moe(x.double(), gate_up.double(), down.double(), weights, ids)
        out = moe.moe(x, gate_up, down, weights, ids)
        yield f"experts, {tokens} tokens", apart(out, expected), 3 * MOST[bench.dtype]
        yield "other bits the second time", float(not torch.equal(out, moe.moe(x, gate_up, down, weights, ids))), 0


def _pages(bench: Bench) -> Found:
    pool = torch.randn(8, 2, 2, 2, 64, bench.pick(128, 16), device=bench.device, dtype=bench.dtype)
    expected = pool.clone()
    source, target = torch.tensor([1, 1, 5], device=bench.device), torch.tensor([4, 2, 0], device=bench.device)
    page_copy_reference(expected, source, target)
    page_copy(pool, source, target)
    yield "page copy: differing", float((pool != expected).sum()), 0


CHECKS = (_draws, _drafts, _rope, _rows, _pages, _products, _experts)
"""The last one chooses by what kernels return, so it cannot go on where they are only compiled."""


@contextmanager
def by_torch() -> Iterator[None]:
    """Operations of ``kernels`` are torch's."""
    before = os.environ.get("BANYAN_TRITON")
    os.environ["BANYAN_TRITON"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["BANYAN_TRITON"]
        else:
            os.environ["BANYAN_TRITON"] = before


def rows_of(point: Point, vocab: int) -> StepRows:
    """The step on the host."""
    tables, _ = block_tables(point.case())
    counts, starts = np.array(point.counts), np.array(point.starts)
    first = counts.cumsum() - counts
    positions = np.arange(int(counts.sum())) - first.repeat(counts) + starts.repeat(counts)
    pages = tables[np.arange(len(counts)).repeat(counts), positions // PAGE].astype(np.int64)
    return StepRows(
        tokens=np.random.default_rng(1).integers(0, vocab, len(positions)),
        positions=positions,
        slots=pages * PAGE + positions % PAGE,
        logit_rows=first + counts - 1,
        counts=counts,
        starts=starts,
        tables=tables,
        first_rows=first,
        emitting=np.arange(len(counts)),
        feed=np.full(len(positions), -1),
        owners=np.arange(len(counts)),
        versions=np.zeros(len(counts), np.int64),
    )


def model(bench: Bench) -> None:
    """A whole pass of a few layers with our kernels against the same with torch's operations; then decode steps in the
    engine's graphs, padded, against the same pass launched one by one."""
    for name in ("8B", "0.6B"):
        config = config_of(name, bench, layers=bench.pick(4, 1))
        made, _ = make_model(config, bench)
        mixed = Point("", [70, 1, 1, 5], [0, 200, 127, 64]) if not bench.gpu.dry else Point("", [3, 1], [0, 5])
        pool = _pool(made, mixed, bench)
        other = _pool(made, mixed, bench)
        other.storage.copy_(pool.storage)
        rows = rows_of(mixed, config.vocab_size)
        passes = Eager(made, pool, 64)
        logits, finite, *_ = passes.forward(passes.place(rows))
        with by_torch():
            passes = Eager(made, other, 64)
            expected, *_ = passes.forward(passes.place(rows))
        n = len(rows.emitting)
        bench.table.at_most("T22", f"{name} shape, logits against torch's", apart(logits[:n], expected[:n]), 2e-2)
        bench.table.true("T22", f"{name} shape, finite", bool(finite.all()), detail=True)
        bench.table.at_most(
            "T22", f"{name} shape, pages against torch's", apart(pool.storage, other.storage), 2e-2, detail=True
        )
    decodes = Point("", [1] * 5, [100, 64, 63, 900, 7]), Point("", [1] * 21, [2048 + i for i in range(21)], 2048)
    chunks = Point("", [700, *[1] * 9, 40], [1000, *[64 * i + 30 for i in range(9)], 0])
    for point in (*decodes, chunks):
        small = point.small(bench)
        pool = _pool(made, small, bench)
        rows = rows_of(small, config.vocab_size)
        plain = Eager(made, pool, 64)
        expected = plain.forward(plain.place(rows))[0].clone()
        capture = (lambda step: step) if bench.gpu.dry else cuda_graphs()
        graphs = StepGraphs(made, pool, 64, rows.tables.shape[1] + 3, capture)
        n = len(rows.emitting)
        for _ in range(3):  # operation by operation, captured, repeated
            batch = graphs.place(rows)
            logits = graphs.forward(batch)[0]
            bench.table.at_most(
                "T22", f"graph of {len(batch.tokens)} rows", apart(logits[:n], expected[:n]), 1e-2, True
            )


def _pool(made: Decoder, point: Point, bench: Bench) -> KVPool:
    """Random pages, as many as the step needs."""
    pool = KVPool(made.config, block_tables(point.case())[1], PAGE, bench.dtype, bench.device)
    pool.storage.normal_()
    return pool
