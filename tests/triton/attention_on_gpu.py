"""Check the attention kernels on a GPU, then time them: what the interpreter and the compiler cannot show.

    python -m tests.triton.attention_on_gpu            checks and times, about a minute and a half
    python -m tests.triton.attention_on_gpu check      checks only

Prints one line per case and exits with 1 if a result is wrong. Times are of CUDA graphs that go through the layers of a
pool larger than the L2 cache, the median of the replays; the figures count each key once per request that reads it, so
shared prefixes may show more than the memory gives.
"""

import statistics
import sys
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from kernels.prefix_runs import prefix_runs
from kernels.reference.paged_attention import paged_attention as reference
from kernels.triton.attention import machine_of, make_plan, paged_attention

BF16, FP16, FP8 = torch.bfloat16, torch.float16, torch.float8_e4m3fn


@dataclass(frozen=True)
class Case:
    """A step: ``counts`` new tokens over ``starts`` keys, of which the first ``shared`` are common to all requests."""

    name: str
    counts: list[int]
    starts: list[int]
    group: int = 4
    kv_heads: int = 8
    head_dim: int = 128
    page_size: int = 64
    dtype: torch.dtype = BF16
    kv_dtype: torch.dtype | None = None
    shared: int = 0
    tree: bool = False
    options: dict[str, bool] = field(default_factory=dict)
    """Of ``paged_attention``; specialised warps get packed queries."""


class Step:
    """A case's tensors on a device. ``share`` False: what requests have in common is read by each."""

    def __init__(self, case: Case, layers: int, device: str, share: bool = True, wide_rows: int = 128) -> None:
        self.case = case
        torch.manual_seed(0)
        self.counts, self.starts = np.array(case.counts), np.array(case.starts)
        used = -(-(self.counts + self.starts) // case.page_size)
        common = case.shared // case.page_size
        self.tables = np.zeros((len(used), int(used.max())), np.int32)
        page = common
        for table, n in zip(self.tables, used.tolist(), strict=True):
            table[:common] = np.arange(common)
            table[common:n] = np.arange(page, page + n - common)
            page += n - common
        # Pages in no order.
        shuffled = np.random.default_rng(0).permutation(page).astype(np.int32)
        self.tables = shuffled[self.tables]
        shape = (page, layers, 2, case.kv_heads, case.page_size, case.head_dim)
        kv_dtype = case.kv_dtype or case.dtype
        self.pool = torch.empty(shape, dtype=kv_dtype, device=device)
        for layer in range(layers):
            self.pool[:, layer] = torch.randn(shape[:1] + shape[2:], device=device).to(kv_dtype)
        self.scales = torch.rand(shape[:4], device=device) + 0.5 if kv_dtype == FP8 else None
        heads = case.group * case.kv_heads
        tokens = int(self.counts.sum())
        self.q = torch.randn(tokens, heads, case.head_dim, device=device).to(case.dtype)
        self.packed = self.q.view(tokens, case.kv_heads, case.group, case.head_dim).permute(1, 0, 2, 3).contiguous()
        runs = prefix_runs(self.starts, self.tables, case.page_size) if share else []
        # A chain as a tree: each token sees the new ones before it.
        bits = [(2 << i) - 1 if i < 63 else -1 for n in case.counts for i in range(n)]
        chain = torch.tensor(bits) if case.tree else None
        machine = replace(machine_of(self.pool.device), most_wide_rows=wide_rows)
        step = (self.counts, self.starts, self.tables)
        self.plan = make_plan(*step, self.pool, heads, runs, tree_masks=chain, machine=machine)
        self.out = torch.zeros_like(self.q)

    def run(self, layer: int) -> torch.Tensor:
        """One layer."""
        packed = self.case.options.get("specialised", False)
        return paged_attention(
            self.packed if packed else self.q,
            self.pool,
            layer,
            self.plan,
            self.case.head_dim**-0.5,
            out=self.out,
            scales=self.scales,
            **self.case.options,
        )

    def error(self) -> tuple[float, bool]:
        """Relative error (L2) of a layer against float64, and whether a second run gives the same bits."""
        self.plan.partial.fill_(float("nan"))
        self.out.fill_(float("nan"))
        first = self.run(1).clone()
        again = torch.equal(first, self.run(1))
        pool = self.pool[:, 1:2].cpu().double()
        if self.scales is not None:
            pool *= self.scales[:, 1:2, :, :, None, None].cpu()
        scale = self.case.head_dim**-0.5
        expected = reference(self.q.cpu().double(), pool, 0, self.counts, self.starts, self.tables, scale)
        wrong = (first.cpu().double() - expected).norm() / expected.norm()
        return float(wrong), again

    def microseconds(self, layers: int, replays: int = 20) -> float:
        """Median time of a layer."""
        self.run(0)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for layer in range(layers):
                self.run(layer)
        for _ in range(5):
            graph.replay()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
        marks[0].record()
        for mark in marks[1:]:
            graph.replay()
            mark.record()
        torch.cuda.synchronize()
        times = [before.elapsed_time(after) for before, after in pairwise(marks)]
        return statistics.median(times) * 1000 / layers


RAGGED = {"counts": [1, 1, 1, 1, 5, 40, 1], "starts": [0, 62, 63, 64, 100, 30, 700]}
CHECKS = [
    *(Case(f"group {group}", **RAGGED, group=group, kv_heads=2) for group in (1, 2, 3, 4, 7, 8)),
    *(
        Case(f"head_dim {dim} pages of {page}", **RAGGED, kv_heads=2, head_dim=dim, page_size=page)
        for dim in (64, 80, 128)
        for page in (16, 64)
    ),
    Case("fp16", **RAGGED, dtype=FP16),
    Case("fp32", **RAGGED, dtype=torch.float32),
    Case("fp8", **RAGGED, kv_dtype=FP8),
    Case("fp8 pages of 16", **RAGGED, kv_dtype=FP8, page_size=16),
    Case("drafts", [6, 64, 1], [100, 70, 9], tree=True),
    Case("split", [1, 2], [9000, 100]),
    Case("split chunk", [64], [5000]),
    Case("chunk", [300], [500]),
    Case("shared", [1] * 24, [4096 + 9 * i for i in range(24)], shared=4096),
    Case("shared, group 7", [1] * 40, [2048 + 64] * 40, group=7, shared=2048),
    Case("overlap", [1] * 24 + [200], [4096 + 9 * i for i in range(25)], shared=4096, options={"overlap": True}),
    Case("specialised", [300, 1], [500, 900], options={"specialised": True}),
    Case("specialised d64 group 7", [300], [500], head_dim=64, group=7, options={"specialised": True}),
    Case("specialised d80", [300], [500], head_dim=80, options={"specialised": True}),
    Case("specialised shared", [1] * 40, [2111] * 40, shared=2048, options={"specialised": True, "overlap": True}),
]
# Relative errors that rounding of the result explains.
MOST = {BF16: 4e-3, FP16: 6e-4, torch.float32: 2e-6}

DECODE = [
    Case("B=64 4k", [1] * 64, [4095] * 64),
    Case("B=16 4k", [1] * 16, [4095] * 16),
    Case("B=256 1k", [1] * 256, [1023] * 256),
    Case("B=1 16k", [1], [16383]),
    Case("B=64 ragged", [1] * 64, np.linspace(128, 8192, 64).astype(int).tolist()),
    Case("B=64 4k pages of 16", [1] * 64, [4095] * 64, page_size=16),
    Case("B=64 4k d64", [1] * 64, [4095] * 64, head_dim=64),
    Case("B=64 4k group 2", [1] * 64, [4095] * 64, group=2),
    Case("B=64 4k fp8", [1] * 64, [4095] * 64, kv_dtype=FP8),
]
SHARED = [
    Case("B=64 8k shared + 256", [1] * 64, [8192 + 255] * 64, shared=8192),
    Case("B=8 2k shared + 256", [1] * 8, [2048 + 255] * 8, shared=2048),
]
PREFILL = [
    Case("chunk 2k over 0", [2048], [0]),
    Case("chunk 2k over 8k", [2048], [8192]),
    Case("chunk 2k over 8k d64", [2048], [8192], head_dim=64),
    Case("chunk 8k over 0", [8192], [0]),
]
MIXED = Case("chunk 2k over 4k + 64 decodes 4k", [2048] + [1] * 64, [4096] * 65)


def check(device: str) -> bool:
    """Whether all results are right."""
    fine = True
    for case in CHECKS:
        try:
            wrong, again = Step(case, 2, device).error()
            right = wrong <= MOST[case.dtype] and again
            remark = "" if again else ", other bits the second time"
            print(f"{'ok  ' if right else 'FAIL'} {case.name}: {wrong:.1e}{remark}")
        except Exception as error:  # one broken variant must not hide the others
            right = False
            print(f"FAIL {case.name}: {type(error).__name__} {error}"[:400])
        fine &= right
    return fine


def time_all() -> None:
    """One line per case."""
    for case in (*DECODE, *SHARED):
        keys = sum(case.starts) + len(case.starts)
        size = 2 * keys * case.kv_heads * case.head_dim * (case.kv_dtype or case.dtype).itemsize
        layers = max(2, min(8, 400_000_000 // size + 1))
        plain = Step(case, layers, "cuda", share=False).microseconds(layers)
        line = f"{case.name}: {plain:.1f} us, {size / plain / 1e6:.2f} TB/s"
        if case.shared:
            for options in ({}, {"overlap": True}):
                shared = Step(replace(case, options=options), layers, "cuda").microseconds(layers)
                line += f"; shared{' overlapping' if options else ''} {shared:.1f} us, {plain / shared:.2f}x"
        print(line, flush=True)
    for case in PREFILL:
        pairs = sum(n * start + n * (n + 1) // 2 for n, start in zip(case.counts, case.starts, strict=True))
        flop = 4 * pairs * case.group * case.kv_heads * case.head_dim
        for remark, options, rows in (
            ("", {}, 128),
            (" tiles of 64 rows", {}, 64),
            (" specialised", {"specialised": True}, 128),
        ):
            took = Step(replace(case, options=options), 2, "cuda", wide_rows=rows).microseconds(2)
            print(f"{case.name}{remark}: {took:.1f} us, {flop / took / 1e6:.0f} TF", flush=True)
    for options in ({}, {"overlap": True}):
        took = Step(replace(MIXED, options=options), 2, "cuda").microseconds(2)
        print(f"{MIXED.name}{' overlapping' if options else ''}: {took:.1f} us", flush=True)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(torch.cuda.get_device_name() if device == "cuda" else "interpreter")
    fine = check(device)
    if fine and device == "cuda" and "check" not in sys.argv[1:]:
        time_all()
    sys.exit(not fine)


if __name__ == "__main__":
    main()
