"""transformers as a whole engine, with a model of the 1B shape and random weights: ``generate`` with a static cache,
whose steps it compiles, and ``generate_batch``.

Both are asked how long a token of all requests takes once everybody decodes; prompts and compilation are not in it.
"""

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from benchmarks.gpu.device import Took
from benchmarks.gpu.models import config_of
from benchmarks.gpu.stage import Bench


@dataclass(frozen=True)
class Job:
    """``requests`` with ``prompt`` tokens each, of which the first ``shared`` are common, and ``new`` more to come."""

    name: str
    requests: int
    prompt: int
    shared: int
    new: int


def reference_model(bench: Bench) -> Any:
    """Its Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = config_of("1B", bench)
    told = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=1 << 14,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device(bench.device):
            return LlamaForCausalLM(told).eval()
    finally:
        torch.set_default_dtype(before)


class Clock:
    """A criterion for stopping that never stops and notes when each token came."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ended: list[float] = []

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.bench.gpu.synchronize()
        self.ended.append(time.perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def steady(ended: list[float]) -> Took:
    """Time between tokens in the later half, when steps are compiled and recorded as graphs."""
    gaps = [1e6 * (after - before) for before, after in pairwise(ended)]
    return Took.of(gaps[len(gaps) // 2 :])


def static_cache(bench: Bench, job: Job) -> Took:
    """``generate``. What is shared is in each row's cache already, whatever it is."""
    from transformers import StaticCache, StoppingCriteriaList

    model, clock = reference_model(bench), Clock(bench)
    config = model.config
    cache = StaticCache(config=config, max_cache_len=job.prompt + job.new)
    shape = (job.requests, config.num_key_value_heads, config.head_dim)
    cache.early_initialization(*shape, dtype=bench.dtype, device=bench.device)
    for layer in cache.layers:
        layer.keys.normal_()
        layer.values.normal_()
        layer.cumulative_length.fill_(job.shared)
    ids = torch.randint(1, config.vocab_size, (job.requests, job.prompt), device=bench.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=job.new,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return steady(clock.ended)


def continuous_batching(bench: Bench, job: Job) -> Took:
    """``generate_batch`` over torch's operations, as it is without flash-attn."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model = reference_model(bench)
    model.set_attn_implementation("paged|sdpa")
    told: Any = GenerationConfig(max_new_tokens=job.new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    inputs = torch.randint(1, model.config.vocab_size, (job.requests, job.prompt)).tolist()
    # It would take all memory for pages and then try a step that reads them all; these are enough.
    room: Any = ContinuousBatchingConfig()
    room.num_blocks = job.requests * (-(-(job.prompt + job.new) // room.block_size) + 1)
    room.max_batch_tokens = bench.pick(4096, 128)
    answers = model.generate_batch(
        inputs=inputs, generation_config=told, continuous_batching_config=room, record_timestamps=True
    )
    failed = [answer.error for answer in answers.values() if answer.error]
    if failed or len(answers) < job.requests:
        raise RuntimeError(f"{len(answers)} of {job.requests} answers; {failed[:1]}")
    gaps = []
    for answer in answers.values():  # steps overlap, so that tokens can come two at a time
        later = answer.timestamps[job.new // 2 :]
        gaps.append(1e6 * (later[-1] - later[0]) / (len(later) - 1))
    return Took(statistics.median(gaps), 0.0)
