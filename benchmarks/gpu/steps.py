"""Whole steps of the forward pass: decode in a graph and without, prefill, both together."""

import torch

from backend.models.batch import Batch
from backend.models.config import ModelConfig
from backend.models.decoder import Decoder
from benchmarks.gpu.device import Call, Took
from benchmarks.gpu.models import (
    Point,
    attention_flop,
    config_of,
    floor_us,
    make_batch,
    make_model,
    make_pool,
    pages_of,
)
from benchmarks.gpu.stage import Bench
from benchmarks.gpu.table import Row


def even(requests: int, context: int, shared: int = 0) -> Point:
    """A decode step of equally long requests."""
    common = f", {shared // 1024}k shared" if shared else ""
    size = f"{context // 1024}k" if context >= 1024 else str(context)
    return Point(f"B={requests} ctx {size}{common}", [1] * requests, [context - 1] * requests, shared)


# Model, step, target, part of the floor that must be reached.
DECODE: tuple[tuple[str, Point, str, float | None], ...] = (
    ("1B", even(1, 1024), "T13", 0.62),
    ("1B", even(64, 4096), "T13", 0.75),
    ("1B", even(256, 1024), "", None),
    ("1B", even(64, 8192 + 256, 8192), "", None),
    ("0.6B", even(1, 1024), "T13", 0.40),
    ("0.6B", even(64, 4096), "", None),
    ("4B", even(1, 1024), "", None),
    ("4B", even(16, 4096), "", None),
    ("8B", even(1, 1024), "T12", 0.80),
    ("8B", even(64, 4096), "T12", 0.80),
    ("8B", even(64, 8192 + 256, 8192), "T14", 0.70),
    ("8B", even(16, 2048 + 256, 2048), "", None),
)
LEAST_SHARED = 3.2
PREFILL = (
    Point("prefill 2k over 0", [2048], [0]),
    Point("prefill 2k over 2k", [2048], [2048]),
    Point("prefill 8k over 0", [8192], [0]),
    Point("prefill 2 x 4k", [4096] * 2, [0] * 2),
)
MIXED = Point("prefill 2k + 64 decodes 1k", [2048] + [1] * 64, [0] + [1023] * 64)
PREFILL_MODELS = ("1B", "8B")


def decode(bench: Bench) -> None:
    """Steps in CUDA graphs against what reading weights and keys takes; launched one by one beside it."""
    for name in dict.fromkeys(model for model, *_ in DECODE):
        config = config_of(name, bench)
        mine = [(point.small(bench), id, least) for model, point, id, least in DECODE if model == name]
        model, weights = make_model(config, bench)
        pool = make_pool(config, pages_of([point for point, *_ in mine]), bench)
        for point, id, least in mine:
            _decode(bench, f"{name} {point.name}", point, id, least, model, weights, pool)
        del model, pool
        bench.gpu.release()


def _decode(
    bench: Bench,
    case: str,
    point: Point,
    id: str,
    least: float | None,
    model: Decoder,
    weights: int,
    pool: torch.Tensor,
) -> None:
    """One step; ``weights`` are the bytes that it reads of them."""
    config = model.config
    step = forward(model, make_batch(point, config, pool, bench, room=True), pool)
    took = bench.gpu.timed_eagerly(bench.gpu.capture(step), repeats=15, warm=3)
    step = forward(model, make_batch(point, config, pool, bench), pool)
    eager = bench.gpu.timed_eagerly(step, repeats=5)
    floor = floor_us(point, config, weights, *_ceilings(bench))
    share = floor / took.us
    row = Row(
        id,
        case,
        took.us,
        took.spread,
        share=share,
        floor_us=floor,
        peer="own, eager",
        peer_us=eager.us,
        ratio=eager.us / took.us,
        target=f">={least:.0%} of floor" if least else "",
        passed=share >= least if least else None,
    )
    bench.table.add(row)
    if point.shared:
        step = forward(model, make_batch(point, config, pool, bench, share=False), pool)
        slow = bench.gpu.timed_eagerly(bench.gpu.capture(step), repeats=5)
        bench.table.ratio(id, case, took, "own, not shared", slow, LEAST_SHARED if id else None)


def prefill(bench: Bench) -> None:
    """Chunks, launched one by one: their kernels are long. Rates are of all products, the target is of the matrix rate;
    then a chunk and decodes in one step against one after the other."""
    for name in PREFILL_MODELS:
        config = config_of(name, bench)
        points = [point.small(bench) for point in PREFILL]
        mixed = MIXED.small(bench)
        model, _ = make_model(config, bench)
        pool = make_pool(config, pages_of([*points, mixed]), bench)

        def took(point: Point, model: Decoder = model, pool: torch.Tensor = pool, config: ModelConfig = config) -> Took:
            call = forward(model, make_batch(point, config, pool, bench), pool)
            return bench.gpu.timed_eagerly(call, repeats=5)

        for point in points:
            time = took(point)
            rows = sum(point.counts)
            tables = config.vocab_size * config.hidden_size * (1 if config.tied_embeddings else 2)
            flop = 2 * (config.parameters - tables) * rows + attention_flop(point, config)
            target = 0.60 if name == "8B" else None
            case = f"{name} {point.name}, {rows / time.us * 1e3:.1f}k tok/s"
            bench.table.share("T15" if target else "", case, time, flop, "matmul", target)
        chunk = Point("", mixed.counts[:1], mixed.starts[:1])
        decodes = Point("", mixed.counts[1:], mixed.starts[1:])
        parts = Took(took(chunk).us + took(decodes).us, 0.0)
        bench.table.ratio("", f"{name} {mixed.name}", took(mixed), "sum of the parts", parts)
        del model, pool
        bench.gpu.release()


def forward(model: Decoder, batch: Batch, pool: torch.Tensor) -> Call:
    """A forward pass as a call."""
    return lambda: model.forward(batch, pool)


def _ceilings(bench: Bench) -> tuple[float, float]:
    """Copy in bytes/s and products in flop/s; where they were not measured in this run, an H200's."""
    known = bench.table.ceilings
    return known.get("copy", 4.3e12), known.get("matmul", 7.9e14)
