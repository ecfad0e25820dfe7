"""Attention of one layer, timed by graphs that go through several: decode, shared prefixes, prefill chunks, mixed."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.cases import FP8, Case, Step, dry, layers_beyond_l2
from benchmarks.gpu.device import Took
from benchmarks.gpu.stage import Bench
from kernels.triton.plan import Machine

B64 = Case("B=64 ctx 4k", [1] * 64, [4095] * 64)
# Target, case, part of the copy rate.
DECODE = (
    ("T1", B64, 0.90),
    ("T2", Case("B=16 ctx 4k", [1] * 16, [4095] * 16), 0.83),
    ("T2", Case("B=256 ctx 1k", [1] * 256, [1023] * 256), 0.90),
    ("T2", Case("B=64 ragged 128..8k", [1] * 64, np.linspace(127, 8191, 64).astype(int).tolist()), 0.85),
    ("T3", Case("B=1 ctx 16k", [1], [16383]), 0.55),
    ("T4", replace(B64, name="B=64 ctx 4k d64", head_dim=64), 0.85),
    ("T4", replace(B64, name="B=64 ctx 4k group 2", group=2), 0.85),
    ("", replace(B64, name="B=64 ctx 4k pages of 16", page_size=16), None),
)
FOUR_LEVELS = ((1, 2048), (4, 1024), (4, 512), (4, 256))
# Target, case, times the own kernel without sharing, and the most microseconds.
SHARED = (
    ("T7", Case("B=64 8k shared + 256", [1] * 64, [8192 + 255] * 64, levels=((1, 8192),)), 8.0, 55.0),
    ("T8", Case("B=64 32k shared + 256", [1] * 64, [32768 + 255] * 64, levels=((1, 32768),)), 13.0, None),
    ("T9", Case("B=8 2k shared + 256", [1] * 8, [2048 + 255] * 8, levels=((1, 2048),)), 1.0, None),
    ("T10", Case("tree of 4 levels, 64 leaves", [1] * 64, [3840 + 127] * 64, levels=FOUR_LEVELS), 3.0, None),
)
# Target, case, part of the matrix rate.
PREFILL = (
    ("T5", Case("chunk 2k over 0", [2048], [0]), 0.55),
    ("T5", Case("chunk 2k over 4k", [2048], [4096]), 0.55),
    ("T5", Case("chunk 2k over 16k", [2048], [16384]), 0.55),
    ("T6", Case("chunk 2k over 8k d64", [2048], [8192], head_dim=64), 0.45),
    ("", Case("chunk 8k over 0", [8192], [0]), None),
)
# Rows of a wide tile: what the engine takes, and the other.
TILES = {"": 64, " 128 rows": 128}
MIXED = Case("chunk 2k over 4k + 64 decodes 4k", [2048] + [1] * 64, [4096] + [4095] * 64)


def all_steps() -> Iterator[tuple[Case, int]]:
    """Each case and size of tile that is timed, for the compilation before."""
    for _, case, _ in DECODE:
        yield case, 64
    yield replace(B64, name="fp8", kv_dtype=FP8), 64
    for case in (*(case for _, case, *_ in PREFILL), *(case for _, case, _, _ in SHARED), MIXED):
        for rows in TILES.values():
            yield case, rows


def machine(bench: Bench) -> Machine | None:
    """In a dry run one that finds tiny shared prefixes worth while."""
    cheap = Machine(launch_us=0.0, copy_bytes_per_s=1e15, l2_bytes_per_s=1e12, matmul_flop_per_s=1e15)
    return cheap if bench.gpu.dry else None


def timed(case: Case, bench: Bench, share: bool = True, rows: int = 64) -> Took:
    """A layer's time."""
    case = dry(case, bench)
    layers = layers_beyond_l2(case, bench)
    step = Step(case, layers, bench, share, rows, machine(bench))
    took = bench.gpu.timed(step.calls())
    del step
    return took


def decode(bench: Bench) -> None:
    """Each request reads its own keys; beside it torch's attention over keys that lie in one piece."""
    bf16 = None
    for id, case, least in DECODE:
        took = timed(case, bench)
        bf16 = bf16 or took
        peer = None
        if len(set(case.starts)) == 1 and case.page_size == 64:
            peer = contiguous(dry(case, bench), bench)
        name = "SDPA contiguous" if peer else ""
        bench.table.share(id, case.name, took, dry(case, bench).kv_bytes(), "copy", least, name, peer)
        bench.gpu.release()
    case = replace(B64, name="B=64 ctx 4k fp8", kv_dtype=FP8)
    took = timed(case, bench)
    assert bf16 is not None
    bench.table.ratio("T18", case.name, took, "own 16 bits", bf16, 1.4)


def contiguous(case: Case, bench: Bench) -> Took:
    """torch's attention for one new token per request, keys [requests, kv_heads, keys, head_dim]."""
    requests, keys = len(case.counts), case.starts[0] + 1
    layers = layers_beyond_l2(case, bench)
    shape = (requests, case.kv_heads, keys, case.head_dim)
    kv = [torch.randn(2, *shape, device=bench.device, dtype=bench.dtype) for _ in range(layers)]
    q = torch.randn(requests, case.group * case.kv_heads, 1, case.head_dim, device=bench.device, dtype=bench.dtype)
    return bench.gpu.timed([partial(scaled_dot_product_attention, q, k, v, enable_gqa=True) for k, v in kv])


def shared(bench: Bench) -> None:
    """Requests over common prefixes: read once where that pays, against the own kernel that reads for each."""
    for id, case, least, most_us in SHARED:
        plain = timed(case, bench, share=False)
        for way, rows in TILES.items():
            took = timed(case, bench, rows=rows)
            name = f"{case.name}{way}"
            bench.table.ratio(id, name, took, "own, not shared", plain, least if not way else None, detail=bool(way))
            if most_us and not way:
                bench.table.at_most(id, f"{name}, us", took.us, most_us)
        bench.gpu.release()


def prefill(bench: Bench) -> None:
    """Chunks over cached keys in each way that tiles can be computed, then a chunk and decodes in one step."""
    for id, case, least in PREFILL:
        small = dry(case, bench)
        peer = causal(small, bench) if not case.starts[0] else None
        for way, rows in TILES.items():
            took = timed(case, bench, rows=rows)
            if way:
                bench.table.share(id, f"{case.name}{way}", took, small.flop(), "matmul", detail=True)
            else:
                named = "SDPA causal" if peer else ""
                bench.table.share(id, case.name, took, small.flop(), "matmul", least, named, peer)
    alone = replace(MIXED, counts=MIXED.counts[:1], starts=MIXED.starts[:1])
    decodes = replace(MIXED, counts=MIXED.counts[1:], starts=MIXED.starts[1:])
    parts = [timed(part, bench) for part in (alone, decodes)]
    both = Took(sum(part.us for part in parts), 0.0)
    bench.table.ratio("T11", MIXED.name, timed(MIXED, bench), "sum of the parts", both, 0.95)


def causal(case: Case, bench: Bench) -> Took:
    """torch's causal attention of one request from its beginning."""
    shape = (1, case.group * case.kv_heads, case.counts[0], case.head_dim)
    q = torch.randn(shape, device=bench.device, dtype=bench.dtype)
    kv = torch.randn(2, 1, case.kv_heads, *shape[2:], device=bench.device, dtype=bench.dtype)
    call = partial(scaled_dot_product_attention, q, kv[0], kv[1], is_causal=True, enable_gqa=True)
    return bench.gpu.timed([call] * 2)
