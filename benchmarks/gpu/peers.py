"""Other implementations that the machine has: flex_attention, and transformers as a whole engine. Each may be missing
or fail; that is printed and is no failure of ours."""

import time
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.attention import B64, timed
from benchmarks.gpu.cases import Case, dry, layers_beyond_l2
from benchmarks.gpu.device import Call, Took
from benchmarks.gpu.models import config_of, make_batch, make_model, make_pool, pages_of
from benchmarks.gpu.stage import Bench
from benchmarks.gpu.steps import even, forward


def engines(bench: Bench) -> None:
    """All of them."""
    for peer in (flex_attention, static_cache, continuous_batching):
        try:
            peer(bench)
        except Exception as error:
            print(f"  {peer.__name__}: {type(error).__name__} {' '.join(str(error).split())[:200]}", flush=True)
        bench.gpu.release()


def flex_attention(bench: Bench) -> None:
    """torch's compiled flex_attention, keys in one piece, each request its own length by a mask."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    case: Case = dry(B64, bench)
    requests, keys = len(case.counts), case.starts[0] + 1
    compiled: Any = flex if bench.gpu.dry else torch.compile(flex, dynamic=False)
    layers = layers_beyond_l2(case, bench)
    shape = (requests, case.kv_heads, keys, case.head_dim)
    kv = [torch.randn(2, *shape, device=bench.device, dtype=bench.dtype) for _ in range(layers)]
    q = torch.randn(requests, case.group * case.kv_heads, 1, case.head_dim, device=bench.device, dtype=bench.dtype)
    lengths = torch.full((requests,), keys, device=bench.device)
    mask = create_block_mask(lambda b, h, i, j: j < lengths[b], requests, None, 1, keys, device=str(bench.device))
    if bench.gpu.dry:
        # What is not compiled materialises all scores, which is all right for a few keys.
        compiled(q.float(), kv[0][0].float(), kv[0][1].float(), block_mask=mask, enable_gqa=True)
        return
    calls: list[Call] = [partial(compiled, q, k, v, block_mask=mask, enable_gqa=True) for k, v in kv]
    calls[0]()
    peer = bench.gpu.timed(calls)
    bench.table.ratio("", B64.name, timed(B64, bench), "flex_attention", peer, 1.3)


def reference_model(bench: Bench) -> Any:
    """transformers' model of the 1B shape with random weights."""
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
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        dtype=bench.dtype,
    )
    with torch.device(bench.device):
        model: Any = LlamaForCausalLM(told)
        return model.to(bench.dtype).eval()


def own_step(bench: Bench, requests: int, context: int) -> Took:
    """Our decode step at that size, in a graph."""
    config = config_of("1B", bench)
    point = even(requests, context).small(bench)
    model, _ = make_model(config, bench)
    pool = make_pool(config, pages_of([point]), bench)
    step = forward(model, make_batch(point, config, pool, bench), pool)
    return bench.gpu.timed_eagerly(bench.gpu.capture(step), repeats=10)


def static_cache(bench: Bench) -> None:
    """``generate`` with a static cache, 64 requests of 512 tokens, 64 more each; the prompt's pass is in its time."""
    requests, prompt, new = bench.pick(64, 2), bench.pick(512, 4), bench.pick(64, 2)
    model = reference_model(bench)
    ids = torch.randint(1, bench.pick(100000, 90), (requests, prompt), device=bench.device)
    told = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    times = []
    for _ in range(bench.pick(2, 1)):  # the first compiles
        bench.gpu.synchronize()
        began = time.perf_counter()
        model.generate(ids, cache_implementation="static", **told)
        bench.gpu.synchronize()
        times.append((time.perf_counter() - began) * 1e6 / new)
    del model
    bench.gpu.release()
    own = own_step(bench, requests, prompt + new // 2)
    bench.table.ratio("", f"1B B={requests}, a token of each", own, "generate, static", Took(min(times), 0.0), 3.0)


def continuous_batching(bench: Bench) -> None:
    """``generate_batch`` with its paged attention over torch's operations."""
    from transformers import GenerationConfig

    if bench.gpu.dry:
        return  # it wants a device of its own
    requests, prompt, new = 64, 512, 64
    model = reference_model(bench)
    model.set_attn_implementation("paged|sdpa")
    told: Any = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    inputs = torch.randint(1, 100000, (requests, prompt)).tolist()
    began = time.perf_counter()
    model.generate_batch(inputs=inputs, generation_config=told)
    bench.gpu.synchronize()
    took = Took((time.perf_counter() - began) * 1e6 / new, 0.0)
    del model
    bench.gpu.release()
    own = own_step(bench, requests, prompt + new // 2)
    bench.table.ratio("", f"1B B={requests}, a token of each", own, "generate_batch", took, 10.0)
