"""Puts an engine together from options: weights, pool, runner, cache, scheduler, loop."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from backend.engine.loop import EngineLoop
from backend.engine.messages import EngineInfo
from backend.engine.options import EngineOptions
from backend.engine.overlap import Overlapped, Queued
from backend.engine.runner import Runner
from backend.errors import StartError
from backend.models.config import ModelConfig
from backend.weights.dtype import choose_dtype
from backend.weights.load import load_checkpoint, read_model_config
from backend.weights.memory import available_bytes
from scheduler.arms import ARMS
from scheduler.isolation import PART_OF_AIM
from scheduler.loop import Executor, Inline, StepLoop
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings

# Of the memory that is left beside the weights. A CPU shares its memory with everything else on the machine.
CPU_SHARE, GPU_SHARE = 0.25, 0.9
CPU_MOST_BYTES = 4 << 30

# Most people read four tokens a second. A longer step takes in more of a new prompt: on a slow machine 150 ms tripled
# the time to the first token of a short question (docs/log.md).
INTER_TOKEN_MS = {"cpu": 250.0, "cuda": 50.0}

# The aim above bounds a step while others decode. Where nobody does, a GPU's products are at their best from a few
# thousand rows on; a CPU's already here, and whoever comes has to wait for the end of the step.
MAX_STEP_TOKENS = {"cpu": 512, "cuda": 8192}

# A GPU's copy engine fetches 64 keys at a time, and they must not cross a page.
PAGE_SIZE = {"cpu": 16, "cuda": 64}


def assemble(options: EngineOptions, progress: Callable[[str, int, int], None]) -> tuple[EngineLoop, EngineInfo]:
    """An engine that is ready, and what it is. Raises ``StartError`` naming the file, tensor, option or size."""
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(options.model)
    config = read_model_config(folder)
    dtype = choose_dtype(options.dtype, config.dtype, device)
    max_context = min(options.max_context or config.max_context, config.max_context)
    page_size = options.page_size or PAGE_SIZE[device.type]
    page_bytes = Runner.kv_bytes_per_page(config, page_size, dtype)
    kv_bytes = options.kv_memory or _kv_budget(config, options, max_context, page_size, page_bytes, dtype, device)
    pages = kv_bytes // page_bytes
    if pages < 1:
        raise StartError(
            f"--kv-memory {kv_bytes} bytes does not hold one page of {page_size} tokens ({page_bytes} bytes)",
            code="no_memory",
            param="kv_memory",
        )
    loaded = load_checkpoint(
        folder, options.dtype, device, progress, reserve_bytes=pages * page_bytes, weights=options.weights
    )
    max_context = min(max_context, pages * page_size)
    runner = Runner(loaded.model, pages, page_size, options.max_running, max_context)
    inter_token_ms = options.inter_token_ms or INTER_TOKEN_MS[device.type]
    settings = Settings(
        page_size=page_size,
        pages=pages,
        max_running=options.max_running,
        max_step_tokens=max(options.max_step_tokens or MAX_STEP_TOKENS[device.type], options.max_running),
        max_context=max_context,
        max_waiting=options.max_waiting,
        inter_token_s=inter_token_ms / 1000,
        isolation_s=(options.isolation_ms or inter_token_ms * PART_OF_AIM) / 1000,
        arm=options.arm,
    )
    # A secret of this process: nobody outside can construct two prompts with one digest.
    scheduler = Scheduler(settings, ARMS[options.arm].cache(pages, page_size, secret=os.urandom(32)))
    executor: Executor = Inline(runner, time.monotonic)
    if options.overlap:
        executor = (Queued if device.type == "cuda" else Overlapped)(runner, time.monotonic)
    steps = StepLoop(scheduler, executor, time.monotonic, depth=2 if options.overlap else 1)
    loop = EngineLoop(scheduler, steps, time.monotonic)
    info = EngineInfo(
        architecture=config.architecture,
        parameters=config.parameters,
        vocab_size=config.vocab_size,
        max_context=max_context,
        page_size=page_size,
        pages=pages,
        max_running=options.max_running,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=str(device),
        weights_bytes=loaded.weights_bytes,
        kv_bytes=runner.pool.size_bytes,
    )
    return loop, info


def _kv_budget(
    config: ModelConfig,
    options: EngineOptions,
    max_context: int,
    page_size: int,
    page_bytes: int,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Bytes for KV pages when nobody says: a share of what the weights leave free, not more than all slots can fill
    twice (once for the running, once for what is worth keeping), never less than one full context if that is there."""
    free = max(0, available_bytes(device) - config.parameters * dtype.itemsize)
    share = free * GPU_SHARE if device.type == "cuda" else min(free * CPU_SHARE, CPU_MOST_BYTES)
    one_context = -(-max_context // page_size) * page_bytes
    return max(min(int(share), 2 * options.max_running * one_context), min(one_context, free))
