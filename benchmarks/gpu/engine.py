"""The engine itself: scheduler, cache, runner and draw around the forward pass, against the pass alone."""

import time
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.gpu.device import Took
from benchmarks.gpu.models import PAGE, config_of, make_batch, make_model, make_pool, pages_of
from benchmarks.gpu.stage import Bench
from benchmarks.gpu.steps import even, forward

CASES = (("0.6B", 1), ("1B", 1), ("1B", 64), ("8B", 64))
PROMPT = 512
SHARED = 384
LEAST = 0.8


def throughput(bench: Bench) -> None:
    """Requests that decode together, each with a prompt of which most is common to all; what a step takes when all of
    them decode, beside the pass alone in its graph."""
    if find_spec("msgspec") is None:
        print("  engine: left out, msgspec is not installed", flush=True)
        return
    for name, requests in CASES[:: bench.pick(1, 2)]:
        requests = bench.pick(requests, 2)
        config = config_of(name, bench)
        model, _ = make_model(config, bench)
        new = bench.pick(128, 3)
        prompt, shared = bench.pick(PROMPT, 20), bench.pick(SHARED, 16)
        took = decode_step(bench, model, requests, prompt, shared, new)
        point = even(requests, prompt + new // 2, shared if requests > 1 else 0).small(bench)
        pool = make_pool(config, pages_of([point]), bench)
        alone = bench.gpu.timed_eagerly(bench.gpu.capture(forward(model, make_batch(point, config, pool, bench), pool)))
        rate = requests / took.us * 1e6
        share = alone.us / took.us
        bench.table.ratio("", f"engine {name} B={requests}, {rate:.0f} tok/s", took, "its pass alone", alone, LEAST)
        print(f"  engine {name} B={requests}: {took.us:.0f} us a step, the pass alone {share:.0%}", flush=True)
        del model, pool
        bench.gpu.release()


def decode_step(bench: Bench, model: object, requests: int, prompt: int, shared: int, new: int) -> Took:
    """Time between steps while all requests decode: the second time that they come, when nothing is compiled any more
    and their prompts are cached."""
    from backend.engine.overlap import Overlapped, Queued
    from backend.engine.runner import Runner
    from backend.models.decoder import Decoder
    from scheduler.arms import ARMS
    from scheduler.loop import StepLoop
    from scheduler.plan import Sampling
    from scheduler.request import NewRequest
    from scheduler.scheduler import Scheduler
    from scheduler.settings import Settings

    assert isinstance(model, Decoder)
    page = bench.pick(PAGE, 16)
    pages = requests * (-(-(prompt + new) // page) + 1) * 2
    settings = Settings(page, pages, requests, bench.pick(8192, 64), max_context=prompt + new, inter_token_s=0.0)
    scheduler = Scheduler(settings, ARMS["shared"].cache(pages, page, secret=b"benchmark"))
    runner = Runner(model, pages, page, requests, prompt + new)
    executor = (Overlapped if bench.gpu.dry else Queued)(runner, time.monotonic)
    steps = StepLoop(scheduler, executor, time.monotonic)
    chance = np.random.default_rng(0)
    common = chance.integers(0, model.config.vocab_size, shared)
    prompts = [
        np.concatenate([common, chance.integers(0, model.config.vocab_size, prompt - shared)]) for _ in range(requests)
    ]
    times: list[float] = []
    for turn in range(2):
        for index, ids in enumerate(prompts):
            scheduler.submit(
                NewRequest(
                    request=turn * requests + index,
                    prompt=ids.astype("<u4").tobytes(),
                    max_tokens=new,
                    sampling=Sampling(temperature=0.8, seed=index),
                    stop_tokens=frozenset(),
                    tenant="local",
                    namespace="",
                    system_tokens=0,
                    history_tokens=0,
                    queue_seconds=0.0,
                    seconds=0.0,
                ),
                time.monotonic(),
            )
        ended: list[float] = []
        while scheduler.has_work or steps.in_flight:
            outcome = steps.step()
            if outcome is None:
                continue
            broken = [progress.message for progress in outcome.progress if progress.finish == "error"]
            if broken:
                raise RuntimeError(broken[0])
            if len(outcome.progress) == requests:
                ended.append(time.perf_counter())
        times = np.diff(ended).tolist()
    torch.cuda.empty_cache()
    return Took.of([1e6 * seconds for seconds in times[2:] or times])
