"""The CPU path against this machine's limits: products, attention, whole steps.

    python -m benchmarks.cpu CHECKPOINT [--threads N] [--dtype bfloat16] [--weights int8] [--json FILE]

``BANYAN_NATIVE=0`` measures torch's operations instead of the library. Medians of a few dozen repetitions; nothing else
may run. Rows of "limit" are what torch's own product and a large copy reach on this machine, in the same run.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from backend.engine.runner import Runner
from backend.weights.load import LoadedModel, load_checkpoint
from kernels.cpu.library import available, loaded
from kernels.kv_layout import keys_transposed
from kernels.linear import linear, prepare
from kernels.paged_attention import paged_attention, plan_attention
from scheduler.plan import Chunk, Opened, Sampling, StepPlan

PAGE = 16
SYSTEM = 1024  # tokens of the prompt that rows share, or as many of their own
OWN = 64
GREEDY = Sampling(temperature=0.0)


def median_s(call: Callable[[], object], seconds: float = 0.6, least: int = 5) -> float:
    """Median of repetitions for about ``seconds``, after a first call that does not count."""
    call()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass
class Table:
    """Rows as they are printed and kept."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, what: str, value: float, unit: str, note: str = "") -> None:
        """One figure."""
        self.rows.append({"what": what, "value": value, "unit": unit, "note": note})
        print(f"{what:<58}{value:>10.4g} {unit:<12}{note}", flush=True)


def limits(table: Table) -> tuple[float, float]:
    """GFLOP/s of a large float32 product, GB/s of reading memory."""
    x = torch.randn(512, 2048)
    weight = torch.randn(2048, 2048)
    flops = 2 * 512 * 2048 * 2048 / median_s(lambda: torch.nn.functional.linear(x, weight)) / 1e9
    table.add("limit: torch float32 product 512 x 2048 x 2048", flops, "GFLOP/s")
    big = torch.ones(64 << 20)
    bandwidth = big.nbytes / median_s(lambda: big.sum()) / 1e9
    table.add("limit: reading 256 MiB", bandwidth, "GB/s")
    return flops, bandwidth


def products(table: Table, model: LoadedModel, int8: bool, peak: float) -> None:
    """The gate and up projection's shape, by rows."""
    width, depth = 2 * model.config.intermediate_size, model.config.hidden_size
    weight = torch.randn(width, depth).to(model.dtype)
    ready = prepare(weight, gated=True, int8=int8)
    dtype = torch.float32 if ready.packed else model.dtype
    for rows in (1, 4, 16, 64, 512):
        x = torch.randn(rows, depth).to(dtype)
        seconds = median_s(lambda x=x: linear(x, ready))  # type: ignore[misc]
        flops = 2 * rows * width * depth / seconds / 1e9
        table.add(f"product of {rows} rows", flops, "GFLOP/s", f"{flops / peak:.2f} of the limit")


def attention(table: Table, model: LoadedModel) -> None:
    """One layer, 16 decodes after 1,024 tokens: own, all of them shared, and with the sharing not used."""
    config = model.config
    pages = SYSTEM // PAGE
    pool = torch.randn(17 * pages + 32, 1, 2, config.kv_heads, PAGE, config.head_dim).to(model.dtype)
    counts, starts = np.ones(16, np.int64), np.full(16, SYSTEM + 3)
    q = torch.randn(16, config.heads, config.head_dim).to(torch.float32 if keys_transposed(pool) else model.dtype)
    own = np.arange(16 * (pages + 1), dtype=np.int32).reshape(16, -1)
    shared = own.copy()
    shared[:, :pages] = own[0, :pages]
    for name, tables in (("own keys", own), ("shared keys", shared)):
        plan = plan_attention(counts, starts, tables, pool)
        seconds = median_s(lambda plan=plan: paged_attention(q, pool, 0, plan, 0.125))  # type: ignore[misc]
        table.add(f"attention, a layer, 16 decodes after 1,024 {name}", seconds * 1e3, "ms")


class Steps:
    """A runner and its free pages."""

    def __init__(self, model: LoadedModel) -> None:
        self.runner = Runner(model.model, 4000, PAGE, 64, 4096)
        self.vocab = model.config.vocab_size
        self.free = list(range(4000))
        self.number = 0
        self.random = np.random.default_rng(0)

    def run(self, chunks: list[Chunk], opened: list[Opened] | None = None) -> None:
        """One step."""
        self.number += 1
        result = self.runner.run(StepPlan(self.number, chunks, opened or []))
        if result.failures:
            raise RuntimeError(result.failures)

    def chunk(self, slot: int, start: int, count: int, emits: bool, pages: list[int]) -> Chunk:
        """Random tokens."""
        return Chunk(
            slot, slot, start, self.random.integers(0, self.vocab, count).astype("<u4").tobytes(), emits, pages
        )

    def pages(self, tokens: int) -> list[int]:
        """Pages that nobody has."""
        return [self.free.pop() for _ in range(-(-tokens // PAGE))]

    def prompt(self, slot: int, pages: list[int]) -> None:
        """1,024 tokens in two chunks."""
        half = len(pages) // 2
        self.run([self.chunk(slot, 0, SYSTEM // 2, False, pages[:half])], [Opened(slot, slot, GREEDY, 0)])
        self.run([self.chunk(slot, SYSTEM // 2, SYSTEM // 2, True, pages[half:])])

    def decode_s(self, slots: range, system: list[int] | None) -> float:
        """Seconds of a step in which all ``slots`` decode, after 1,024 tokens (of ``system``, or own) and 64 own."""
        for slot in slots:
            pages = (system or self.pages(SYSTEM)) + self.pages(OWN + 64)
            self.run([self.chunk(slot, SYSTEM, OWN, True, pages)], [Opened(slot, slot, GREEDY, SYSTEM)])
        place = SYSTEM + OWN - 1

        def step() -> None:
            nonlocal place
            place += 1
            self.run([self.chunk(slot, place, 1, True, []) for slot in slots])

        times = []
        for _ in range(24):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return statistics.median(times[4:])


def steps(table: Table, model: LoadedModel, peak: float, bandwidth: float) -> None:
    """Prefill and decode of the whole model through the runner, without server and scheduler."""
    parts = Steps(model)
    dense = 2 * model.config.parameters
    system = parts.pages(SYSTEM)
    parts.prompt(0, system)
    start = time.perf_counter()
    parts.prompt(1, parts.pages(SYSTEM))
    speed = SYSTEM / (time.perf_counter() - start)
    ceiling = peak * 1e9 / dense
    table.add("prefill, 1,024 tokens in chunks of 512", speed, "tokens/s", f"{speed / ceiling:.2f} of products alone")
    for count, shared, first in ((1, False, 2), (16, True, 4), (16, False, 24)):
        seconds = parts.decode_s(range(first, first + count), system if shared else None)
        floor = max(model.weights_bytes / bandwidth / 1e9, count * dense / peak / 1e9)
        kind = "shared" if shared else "own"
        table.add(
            f"decode, {count} rows after 1,024 {kind} tokens",
            count / seconds,
            "tokens/s",
            f"{seconds * 1e3:.1f} ms a step, {floor / seconds:.2f} of weights or products alone",
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--weights", default="auto", choices=("auto", "int8"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    variant = loaded().banyan_variant().decode() if available() else "torch"
    began = time.perf_counter()
    model = load_checkpoint(options.checkpoint, options.dtype, weights=options.weights)
    print(f"{platform.machine()}, {variant}, {options.threads} threads, {model.dtype}, weights {options.weights}")
    table = Table()
    table.add("loading the checkpoint", time.perf_counter() - began, "s", f"{model.weights_bytes / 1e6:.0f} MB")
    with torch.inference_mode():
        peak, bandwidth = limits(table)
        products(table, model, options.weights == "int8", peak)
        attention(table, model)
        steps(table, model, peak, bandwidth)
    if options.json:
        head = {"variant": variant, "threads": options.threads, "dtype": str(model.dtype), "weights": options.weights}
        options.json.write_text(json.dumps({**head, "rows": table.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
