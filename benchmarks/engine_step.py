"""What the engine's own code adds to a step, and whether that grows: the whole loop with a real model on this machine.

    python -m benchmarks.engine_step CHECKPOINT share [--weights int8] [--threads N] [--json FILE]
    python -m benchmarks.engine_step CHECKPOINT growth [--blocks 1000000] [--waiting 10000] ...

``share``: 32 requests decode after 530 tokens. The part of a step in which the library of CPU kernels does not work:
with each step planned when the one before has ended, and as the engine runs, planned while that one computes.

``growth``: 32 rows, kept full from a queue; time per output token of whole steps (plan, forward pass, commit, the event
encoded) with 1,000 cached blocks and 10 requests waiting against many of both. The two engines take turns of a few
steps, so that a machine that changes its speed meanwhile changes both. Cached blocks are real ones in the tree, and all
pages are taken, so that each new page evicts one; but they were never computed and have no KV memory: pages of running
requests are kept in a small pool.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from backend.engine.loop import EngineLoop
from backend.engine.messages import Submit
from backend.engine.runner import Runner
from backend.engine.wire import encode
from backend.weights.load import LoadedModel, load_checkpoint
from benchmarks.engine_promises import GREEDY, House
from benchmarks.radix_and_scheduler import fill
from kernels.cpu.library import loaded
from radix.cache import PrefixCache
from scheduler.loop import Inline, StepLoop
from scheduler.plan import StepPlan, StepResult
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from scheduler.trace import token_block

ROWS, PAGE = 32, 16
SHARED, OWN = 512, 18  # tokens of a prompt in ``share``
PROMPT, TENANTS = 40, 8  # in ``growth``
PAGES_A_ROW = 8
TURN = 4  # steps
COMPUTING = ("linear", "embedding", "rows_finite", "rms_norm", "rotate", "attention", "decode", "sample")


class LibraryTime:
    """Seconds spent in calls of the library of CPU kernels, by whichever thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in COMPUTING:
            setattr(loaded(), f"banyan_{name}", self._timed(getattr(loaded(), f"banyan_{name}")))

    def _timed(self, call: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: object) -> None:
            began = time.perf_counter()
            call(*arguments)
            self.seconds += time.perf_counter() - began

        return timed


def share(library: LibraryTime, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step and the part of it that is not the library's, planned in turn and planned ahead."""
    found: dict[str, float] = {}
    for name, overlap in (("planned in turn", False), ("planned ahead", True)):
        house = House(
            str(options.checkpoint),
            max_running=ROWS,
            threads=options.threads,
            weights=options.weights,
            kv_memory=1 << 30,
            overlap=overlap,
        )
        system = house.draw(SHARED)
        ids = [house.ask(system + house.draw(OWN), 400) for _ in range(ROWS)]
        while min(len(house.times[request]) for request in ids) < 10:
            house.step()
        parts, walls = [], []
        for _ in range(options.turns):
            began, before = time.perf_counter(), library.seconds
            for _ in range(TURN):
                house.step()
            wall = time.perf_counter() - began
            walls.append(wall / TURN)
            parts.append(1 - (library.seconds - before) / wall)
        while house.loop.steps.in_flight:
            house.loop.collect()
        found[f"step, {name}, ms"] = statistics.median(walls) * 1e3
        found[f"not the library's, {name}, %"] = statistics.median(parts) * 100
    return found


class FewPages:
    """A ``Runner`` that keeps pages of running requests only, under numbers of its own. No two requests share pages."""

    def __init__(self, model: LoadedModel) -> None:
        pages = ROWS * PAGES_A_ROW
        self._runner = Runner(model.model, pages, PAGE, ROWS, PAGES_A_ROW * PAGE)
        self._free = list(range(pages))
        self._held: list[list[int]] = [[] for _ in range(ROWS)]

    def run(self, plan: StepPlan) -> StepResult:
        """Carry out a plan, its pages renumbered."""
        for slot in [*plan.freed, *(opened.slot for opened in plan.opened)]:
            self._free += self._held[slot]
            self._held[slot] = []
        chunks = []
        for chunk in plan.chunks:
            taken = [self._free.pop() for _ in chunk.new_pages]
            self._held[chunk.slot] += taken
            chunks.append(msgspec.structs.replace(chunk, new_pages=taken))
        return self._runner.run(msgspec.structs.replace(plan, chunks=chunks))


class Engine:
    """A loop with so many blocks cached and requests waiting; whoever ends is followed by a new request."""

    def __init__(self, model: LoadedModel, blocks: int, waiting: int) -> None:
        pages = blocks + ROWS * 2
        cache = PrefixCache(pages, PAGE)
        fill(cache, pages)
        settings = Settings(
            page_size=PAGE,
            pages=pages,
            max_running=ROWS,
            max_step_tokens=512,
            max_context=PAGES_A_ROW * PAGE,
            max_waiting=waiting + ROWS,
            inter_token_s=10.0,
        )
        scheduler = Scheduler(settings, cache)
        runner = Inline(FewPages(model), time.monotonic)
        self._loop = EngineLoop(scheduler, StepLoop(scheduler, runner, time.monotonic, depth=1), time.monotonic)
        self._asked = 0
        self.seconds = self.library_seconds = 0.0
        self.tokens = 0
        for _ in range(waiting + ROWS):
            self._ask()

    def _ask(self) -> None:
        self._asked += 1
        tokens = token_block(f"request {self._asked}", PROMPT)
        prompt = b"".join((token % 8000).to_bytes(4, "little") for token in memoryview(tokens).cast("I"))
        refused = self._loop.handle(
            Submit(self._asked, prompt, 16 + self._asked * 7 % 32, GREEDY, tenant=f"tenant {self._asked % TENANTS}")
        )
        if refused is not None:
            raise RuntimeError(refused)

    def turn(self, library: LibraryTime, counts: bool) -> None:
        """A few steps; requests that follow those that ended are asked outside of the time that counts."""
        for _ in range(TURN):
            began, before = time.perf_counter(), library.seconds
            output = self._loop.step()
            if output is None:
                raise RuntimeError("nothing to do")
            encode(output)
            if counts:
                self.seconds += time.perf_counter() - began
                self.library_seconds += library.seconds - before
                self.tokens += sum(len(entry.tokens) for entry in output.outputs)
            for entry in output.outputs:
                if entry.finish == "error":
                    raise RuntimeError(entry.message)
                if entry.finish:
                    self._ask()


def growth(library: LibraryTime, options: argparse.Namespace) -> dict[str, float]:
    """Time per output token, small and large, with and without the library's part, and the ratios."""
    model = load_checkpoint(options.checkpoint, "auto", weights=options.weights)
    engines = {"small": Engine(model, 1_000, 10), "large": Engine(model, options.blocks, options.waiting)}
    token_block.cache_clear()
    gc.collect()
    gc.freeze()  # as the engine's process does
    for turn in range(options.turns + 8):  # the first ones are slow
        for engine in engines.values():
            engine.turn(library, turn >= 8)
    found = {}
    for name, engine in engines.items():
        found[f"{name}: a token, us"] = engine.seconds / engine.tokens * 1e6
        found[f"{name}: without the library, us"] = (engine.seconds - engine.library_seconds) / engine.tokens * 1e6
    for part in ("a token", "without the library"):
        found[f"{part}, large to small"] = found[f"large: {part}, us"] / found[f"small: {part}, us"]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("what", choices=("share", "growth"))
    parser.add_argument("--weights", default="auto", choices=("auto", "int8"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=24, help=f"that count, of {TURN} steps each")
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"share": share, "growth": growth}[options.what](LibraryTime(), options)
    for name, value in found.items():
        print(f"{name:<48}{value:>10.4g}")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), **found}, default=str, indent=1) + "\n")


if __name__ == "__main__":
    main()
