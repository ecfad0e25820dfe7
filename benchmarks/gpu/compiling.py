"""Compiles the kernels before they are timed, in many processes at once, into Triton's cache.

Each process makes the calls of some cases with launches replaced by compilation, so what is compiled is what the stages
will look for. One layer and memory that is not filled are enough for that.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

import torch

from benchmarks.gpu.device import DryGpu, Gpu
from benchmarks.gpu.stage import Bench
from benchmarks.gpu.table import Table

Unit = Callable[[Bench], None]
MOST_PROCESSES = 14


@contextmanager
def compiling_only() -> Iterator[None]:
    """Kernels are compiled and not launched. Nothing changes in the interpreter, which compiles nothing."""
    from triton.runtime.jit import JITFunction

    launch = JITFunction.__getitem__
    JITFunction.__getitem__ = lambda self, grid: partial(self.run, grid=grid, warmup=True)
    try:
        yield
    finally:
        JITFunction.__getitem__ = launch


def attention_checks(bench: Bench, part: int, parts: int) -> None:
    from benchmarks.gpu.attention import machine
    from benchmarks.gpu.cases import Step, dry
    from benchmarks.gpu.correctness import CASES

    for case in CASES[part::parts]:
        Step(dry(case, bench), 1, bench, machine=machine(bench), empty=True).run(0)


def attention_times(bench: Bench, part: int, parts: int) -> None:
    from benchmarks.gpu.attention import all_steps
    from benchmarks.gpu.cases import Step, dry

    for case, rows in list(all_steps())[part::parts][: bench.pick(1000, 1)]:
        Step(dry(case, bench), 1, bench, wide_rows=rows, empty=True).run(0)


def other_checks(bench: Bench, part: int) -> None:
    """What is compared is garbage, since nothing is launched."""
    from benchmarks.gpu.correctness import CHECKS

    list(CHECKS[part](bench))


def row_operations(bench: Bench) -> None:
    from benchmarks.gpu.operations import row_calls

    for tokens in (bench.pick(8192, 2), bench.pick(64, 1)):
        for calls, _ in row_calls(bench, tokens).values():
            calls[0]()


def sampler(bench: Bench, part: int, parts: int) -> None:
    from benchmarks.gpu.operations import sampler_calls

    for calls in list(sampler_calls(bench).values())[part::parts]:
        calls[0]()


def moe(bench: Bench, tokens: int) -> None:
    from benchmarks.gpu.operations import moe_call

    moe_call(bench, tokens)[0][0]()


def model(bench: Bench, name: str) -> None:
    """One layer, a decode step and a chunk."""
    from benchmarks.gpu.models import Point, config_of, make_batch, make_model, make_pool, pages_of
    from benchmarks.gpu.steps import even

    config = config_of(name, bench, layers=1)
    made, _ = make_model(config, bench)
    points = [even(1, 1024), even(64, 1024), even(64, 4096 + 256, 4096), Point("", [2048], [0])]
    points = [point.small(bench) for point in points]
    pool = make_pool(config, pages_of(points), bench)
    for point in points:
        made.forward(make_batch(point, config, pool, bench), pool)


def units(dry: bool) -> dict[str, Unit]:
    """What a process does at a time."""
    if dry:
        return {"attention": partial(attention_times, part=0, parts=9), "checks": partial(other_checks, part=4)}
    return {
        **{f"attention {part}": partial(attention_times, part=part, parts=6) for part in range(6)},
        **{f"model {name}": partial(model, name=name) for name in ("8B", "1B", "0.6B", "4B")},
        **{f"attention checks {part}": partial(attention_checks, part=part, parts=5) for part in range(5)},
        **{f"checks {part}": partial(other_checks, part=part) for part in range(6)},
        **{f"sampler {part}": partial(sampler, part=part, parts=3) for part in range(3)},
        **{f"moe {tokens}": partial(moe, tokens=tokens) for tokens in (1, 64, 4096)},
        "rows": row_operations,
    }


def one(name: str, dry: bool) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    bench = Bench(DryGpu() if dry else Gpu(), Table())
    try:
        with compiling_only(), torch.inference_mode():
            units(dry)[name](bench)
    except Exception as error:
        print(f"  {name}: {type(error).__name__} {' '.join(str(error).split())[:200]}", flush=True)


def compile_all(bench: Bench) -> None:
    """A unit that fails, or takes its process with it, is printed; its kernels are compiled when they are first used,
    if they can be."""
    dry = bench.gpu.dry
    waiting = list(units(dry))
    most = max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0)) - 1))
    context = multiprocessing.get_context("spawn")
    running: dict[str, SpawnProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                name = waiting.pop(0)
                running[name] = context.Process(target=one, args=(name, dry), daemon=True)
                running[name].start()
            wait([process.sentinel for process in running.values()], timeout=1)
            for name in [name for name, process in running.items() if process.exitcode is not None]:
                if code := running.pop(name).exitcode:
                    print(f"  {name}: ended its process ({code})", flush=True)
    finally:
        for process in running.values():
            process.kill()
