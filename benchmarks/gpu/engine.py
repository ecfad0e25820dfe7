"""The engine itself: scheduler, cache, runner and draw around the forward pass, against the pass alone; and its answers
against those of a CPU."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch

from backend.models.config import ModelConfig
from backend.models.decoder import Decoder
from benchmarks.gpu.device import Took
from benchmarks.gpu.models import PAGE, Point, config_of, make_batch, make_model, make_pool, pages_of
from benchmarks.gpu.stage import Bench
from benchmarks.gpu.steps import even, forward

DECODE = (("0.6B", 1), ("1B", 1), ("1B", 64), ("8B", 64))
PROMPT = 512
SHARED = 384
PREFILL = (("1B", 16, 2048), ("8B", 16, 2048))
LEAST = 0.8
ANSWERS = 24


def needs_msgspec(stage: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """The scheduler's only dependency that a machine with torch may lack."""

    def run(bench: Bench) -> None:
        if find_spec("msgspec") is None:
            print("  engine: left out, msgspec is not installed", flush=True)
            return
        stage(bench)

    return run


@needs_msgspec
def throughput(bench: Bench) -> None:
    """Requests that decode together, each with a prompt of which most is common to all: what a step takes beside the
    pass alone in its graph. Then prompts that share nothing, at once."""
    for name in ["1B"] if bench.gpu.dry else dict.fromkeys(name for name, _ in DECODE):
        config = config_of(name, bench)
        model, _ = make_model(config, bench)
        for wanted, requests in DECODE:
            if wanted == name and (requests == 1 or not bench.gpu.dry):
                _decode(bench, name, model, config, requests)
        for wanted, requests, prompt in PREFILL:
            if wanted == name:
                _prefill(bench, name, model, config, bench.pick(requests, 2), bench.pick(prompt, 20))
        del model
        bench.gpu.release()


def _decode(bench: Bench, name: str, model: Decoder, config: ModelConfig, requests: int) -> None:
    new = bench.pick(128, 3)
    prompt, shared = bench.pick(PROMPT, 20), bench.pick(SHARED, 16)
    took = decode_step(bench, model, requests, prompt, shared, new)
    point = even(requests, prompt + new // 2, shared if requests > 1 else 0).small(bench)
    pool = make_pool(config, pages_of([point]), bench)
    alone = bench.gpu.timed_eagerly(bench.gpu.capture(forward(model, make_batch(point, config, pool, bench), pool)))
    rate = requests / took.us * 1e6
    bench.table.ratio("", f"engine {name} B={requests}, {rate:.0f} tok/s", took, "its pass alone", alone, LEAST)
    print(
        f"  engine {name} B={requests}: {took.us:.0f} us a step, pass alone {alone.us / took.us:.0%}",
        flush=True,
    )
    del pool
    bench.gpu.release()


def decode_step(bench: Bench, model: Decoder, requests: int, prompt: int, shared: int, new: int) -> Took:
    """Time between steps while all requests decode: the second time that they come, when nothing is compiled any more
    and their prompts are cached."""
    from benchmarks.gpu.serving import Serving
    from scheduler.plan import Sampling

    page = bench.pick(PAGE, 16)
    pages = requests * (-(-(prompt + new) // page) + 1) * 2
    serving = Serving(model, pages, page, requests, prompt + new, bench.pick(8192, 64))
    chance = np.random.default_rng(0)
    common = chance.integers(0, model.config.vocab_size, shared)
    prompts = [
        np.concatenate([common, chance.integers(0, model.config.vocab_size, prompt - shared)]) for _ in range(requests)
    ]
    samplings = [Sampling(temperature=0.8, seed=index) for index in range(requests)]
    for _ in range(2):
        outcome = serving.run(prompts, new, samplings)
    times = np.diff([seconds for seconds, count in outcome.ended if count == requests]).tolist()
    return Took.of([1e6 * seconds for seconds in times[2:] or times])


def _prefill(bench: Bench, name: str, model: Decoder, config: ModelConfig, requests: int, prompt: int) -> None:
    """From handing in prompts that share nothing to the last one's first token, while those before decode; against the
    passes alone, chunk after chunk. The third time: the first compiles, the second captures."""
    from benchmarks.gpu.serving import Serving
    from scheduler.plan import Sampling

    page, new, budget = bench.pick(PAGE, 16), bench.pick(16, 2), bench.pick(2048, 64)
    pages = requests * (-(-(prompt + new) // page) + 1) * 2
    serving = Serving(model, pages, page, requests, prompt + new, budget)
    chance = np.random.default_rng(1)
    for _ in range(bench.pick(3, 1)):
        prompts = [chance.integers(0, config.vocab_size, prompt) for _ in range(requests)]
        outcome = serving.run(prompts, new, [Sampling(temperature=0.0)] * requests)
    seconds = outcome.first_tokens_s
    del serving
    bench.gpu.release()
    point = Point("", [budget], [0]).small(bench) if bench.gpu.dry else Point("", [budget], [0])
    pool = make_pool(config, pages_of([point]), bench)
    step = forward(model, make_batch(point, config, pool, bench), pool)
    alone = bench.gpu.timed_eagerly(bench.gpu.capture(step), repeats=5)
    passes = alone.us * requests * prompt / sum(point.counts)
    tokens = requests * prompt
    case = f"engine {name} {requests} prompts of {prompt}, {tokens / seconds / 1e3:.1f}k tok/s"
    bench.table.ratio("", case, Took(1e6 * seconds, 0.0), "its passes alone", Took(passes, 0.0), LEAST)
    print(f"  {case}, passes alone {passes / seconds / 1e6:.0%}", flush=True)
    del pool
    bench.gpu.release()


@needs_msgspec
def answers(bench: Bench) -> None:
    """In float32 the engine gives the same tokens on this device as on the CPU: a random model, requests over a common
    prefix, greedy and drawn; chunks and decodes in one step, twice, so that steps run in graphs too."""
    import msgspec

    from benchmarks.gpu.serving import Serving
    from scheduler.plan import Sampling

    config = replace(config_of("0.6B", bench, layers=bench.pick(4, 1)), vocab_size=bench.pick(4096, 64))
    requests, new, prompt, shared = (bench.pick(*pair) for pair in ((ANSWERS, 2), (24, 2), (200, 20), (130, 18)))
    here = Decoder(config, torch.float32, torch.device("cpu"))
    there = Decoder(config, torch.float32, bench.device)
    generator = torch.Generator().manual_seed(3)
    for mine, theirs in zip(here.parameters(), there.parameters(), strict=True):
        values = torch.randn(mine.target.shape, generator=generator) * 0.05
        mine.target.copy_(values)
        theirs.target.copy_(values)
    here.prepare()
    there.prepare()
    chance = np.random.default_rng(2)
    common = chance.integers(0, config.vocab_size, shared)
    prompts = [
        np.concatenate([common, chance.integers(0, config.vocab_size, prompt - shared - index)])
        for index in range(requests)
    ]
    for name, kind in {
        "greedy": Sampling(temperature=0.0),
        "drawn": Sampling(temperature=0.9),
        "top_k and top_p": Sampling(temperature=1.1, top_k=40, top_p=0.9),
    }.items():
        if bench.gpu.dry and kind.top_k == 0:
            continue  # the interpreter takes a second for each step
        samplings = [msgspec.structs.replace(kind, seed=index) for index in range(requests)]
        found = []
        for model in (here, there):
            page = PAGE if model.device.type == "cuda" else 16
            serving = Serving(model, 4 * requests * (-(-(prompt + new) // page) + 1), page, requests, prompt + new, 96)
            for _ in range(2 if model.device.type == "cuda" else 1):
                outcome = serving.run(prompts, new, samplings)
            found.append(outcome.tokens)
        equal = sum(mine == theirs for mine, theirs in zip(*found, strict=True))
        bench.table.true(
            "T22", f"engine, float32, {name}: {equal} of {requests} texts as on the CPU", equal == requests
        )
