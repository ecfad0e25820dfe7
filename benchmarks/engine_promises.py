"""What the cache and the scheduler promise, on the real engine: counts and gaps with a real model on this machine.

    python -m benchmarks.engine_promises MODEL [--streams 8] [--long 4096] [--aim-ms 150] [--json FILE]

``MODEL``: a checkpoint folder; weights may be random. The simulator's figures for a large machine are
``benchmarks.scheduling``'s. Three parts:

1. 64 cold requests at once on one system prompt of 2,048 tokens, each with 64 tokens of its own: tokens computed.
2. Some streams decode when a long prompt arrives: the largest gap between two tokens of a stream, as a multiple of the
   aim for the time between tokens, with chunks cut to the aim and with the prompt in one piece.
3. What the engine has learned of the time of its steps (``scheduler/cost.py``), and how well it predicts them.
"""

import argparse
import json
import platform
import random
import time
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

from backend.engine.assembly import assemble
from backend.engine.loop import EngineLoop
from backend.engine.messages import StepOutput, Submit
from backend.engine.options import EngineOptions
from scheduler.plan import Sampling

GREEDY = Sampling(temperature=0.0)


class House:
    """An engine in this process, and when each request's tokens came."""

    def __init__(self, model: str, seed: int = 0, **options: Any) -> None:
        self.loop, self.info = assemble(EngineOptions(model=model, **options), lambda what, done, total: None)
        self.chance = random.Random(seed)
        self.times: dict[int, list[float]] = {}
        self.errors: list[tuple[float, float]] = []
        self.ids = 0

    def draw(self, count: int) -> "array[int]":
        """Random tokens."""
        return array("I", self.chance.choices(range(3, self.info.vocab_size), k=count))

    def ask(self, prompt: "array[int]", max_tokens: int) -> int:
        """Hand a request in."""
        self.ids += 1
        self.times[self.ids] = [time.monotonic()]
        refused = self.loop.handle(Submit(self.ids, prompt.tobytes(), max_tokens, GREEDY))
        if isinstance(refused, StepOutput):
            raise RuntimeError(refused.outputs[0].message)
        return self.ids

    def step(self) -> None:
        """As the engine's process does: the next step is planned shortly before the running one ends."""
        loop: EngineLoop = self.loop
        loop.launch()
        predicted = loop.scheduler.predicted_s() if loop.scheduler.fit.ready else 0.0
        while (spare := loop.spare_s()) > 0:
            time.sleep(spare)
        loop.launch()
        output = loop.collect()
        if output is None:
            return
        if predicted:
            self.errors.append((predicted, output.step_ms / 1e3))
        now = time.monotonic()
        for entry in output.outputs:
            if entry.finish == "error":
                raise RuntimeError(entry.message)
            self.times[entry.request] += [now] * len(entry.tokens)

    def run(self) -> None:
        """Until nothing is left."""
        while self.loop.has_work:
            self.step()


def cold(model: str, threads: int) -> dict[str, Any]:
    """Part 1."""
    house = House(model, max_running=64, threads=threads)
    system = house.draw(2048)
    for _ in range(64):
        house.ask(system + house.draw(64), 1)
    house.run()
    house.loop.scheduler.check()
    load = house.loop.scheduler.load()
    return {
        "prompt tokens computed": load.computed_tokens,
        "2,048 + 64 x 64": 2048 + 64 * 64,
        "of all prompt tokens": load.prompt_tokens,
    }


def gaps(model: str, threads: int, streams: int, long: int, aim_ms: float, one_shot: bool) -> dict[str, Any]:
    """Part 2."""
    options: dict[str, Any] = {"inter_token_ms": aim_ms, "max_step_tokens": 512}
    if one_shot:
        options = {"inter_token_ms": 1e9, "max_step_tokens": long + streams}
    house = House(model, max_running=streams + 1, threads=threads, **options)
    house.ask(house.draw(512), 4)  # the first steps of a process are slow
    house.run()
    ids = [house.ask(house.draw(128), 400) for _ in range(streams)]
    while min(len(house.times[request]) for request in ids) < 20:
        house.step()
    settled = [len(house.times[request]) for request in ids]
    last = house.ask(house.draw(long), 4)
    while len(house.times[last]) < 5 and house.loop.has_work:
        house.step()
    found = []
    for request, at in zip(ids, settled, strict=True):
        moments = house.times[request][at - 1 :]
        found += [after - before for before, after in pairwise(moments)]
    found.sort()
    before = sorted(b - a for request in ids for a, b in pairwise(house.times[request][5:20]))
    first = house.times[last]
    return {
        "prefill": "one shot" if one_shot else "time budget",
        "gap without it, median ms": 1e3 * before[len(before) // 2],
        "largest gap ms": 1e3 * found[-1],
        "of the aim": 1e3 * found[-1] / aim_ms,
        "gap p95 ms": 1e3 * found[int(len(found) * 0.95)],
        "TTFT of the long one s": first[1] - first[0],
    }


def learned(model: str, threads: int) -> dict[str, Any]:
    """Part 3: conversations of mixed lengths; predictions made before each step against what it took."""
    house = House(model, max_running=16, threads=threads)
    for _ in range(48):
        house.ask(house.draw(house.chance.choice([60, 200, 700])), house.chance.choice([8, 32, 64]))
    house.run()
    fit = house.loop.scheduler.fit.model
    errors = sorted(abs(predicted - took) / took for predicted, took in house.errors[20:])
    return {
        "a ms": 1e3 * fit.a,
        "b us/token": 1e6 * fit.b,
        "c us/token read": 1e6 * fit.c,
        "d us/pair": 1e6 * fit.d,
        "error p50": errors[len(errors) // 2],
        "error p90": errors[int(len(errors) * 0.9)],
        "steps": len(errors),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--long", type=int, default=4096)
    parser.add_argument("--aim-ms", type=float, default=150.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": platform.machine(), "python": platform.python_version()}
    figures["cold"] = cold(options.model, options.threads)
    for one_shot in (False, True):
        name = "one shot" if one_shot else "time budget"
        figures[name] = gaps(options.model, options.threads, options.streams, options.long, options.aim_ms, one_shot)
    figures["learned"] = learned(options.model, options.threads)
    for name, row in figures.items():
        print(f"\n{name}")
        for key, value in (row if isinstance(row, dict) else {"": row}).items():
            print(f"  {key:28} {value:,.3f}" if isinstance(value, float) else f"  {key:28} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
