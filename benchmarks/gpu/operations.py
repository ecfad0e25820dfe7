"""The operations beside attention: row-wise ones, page copies, the sampler, mixture of experts."""

from functools import partial

import torch

from benchmarks.gpu.correctness import moved, settings
from benchmarks.gpu.device import Call, Took
from benchmarks.gpu.stage import Bench
from kernels.triton import moe as experts
from kernels.triton.page_copy import page_copy
from kernels.triton.rms_norm import rms_norm
from kernels.triton.rope import qk_norm_rope_kv_write
from kernels.triton.sample import sample
from kernels.triton.silu_and_mul import silu_and_mul

LEAST_COPY = 0.88


def random(bench: Bench, *shape: int) -> torch.Tensor:
    """In the dtype of activations."""
    return torch.randn(*shape, device=bench.device, dtype=bench.dtype)


def row_calls(bench: Bench, tokens: int) -> dict[str, tuple[list[Call], int]]:
    """The row-wise operations of an 8B layer at so many tokens: calls over more than the L2 cache, bytes of one."""
    hidden, width = bench.pick(4096, 64), bench.pick(14336, 96)
    heads, kv_heads, head_dim, page = bench.pick(32, 4), bench.pick(8, 2), bench.pick(128, 64), bench.pick(64, 16)
    x, residual, weight = random(bench, tokens, hidden), random(bench, tokens, hidden), random(bench, hidden)
    gate_up = random(bench, tokens, 2 * width)
    qkv = random(bench, tokens, (heads + 2 * kv_heads) * head_dim)
    angle = torch.rand(tokens, head_dim // 2, device=bench.device)
    cos, sin = angle.cos().to(bench.dtype), angle.sin().to(bench.dtype)
    pool = torch.zeros(-(-tokens // page), 2, 2, kv_heads, page, head_dim, device=bench.device, dtype=bench.dtype)
    slots = torch.arange(tokens, device=bench.device)
    norm = random(bench, head_dim)
    size = x.element_size()
    return {
        "rms norm + residual": ([lambda: rms_norm(x, weight, 1e-5, residual)], 4 * x.nbytes),
        "silu and mul": ([lambda: silu_and_mul(gate_up)], 3 * tokens * width * size),
        "rope + KV write": (
            [lambda: qk_norm_rope_kv_write(qkv, cos, sin, None, None, 1e-5, pool, 1, slots)],
            2 * qkv.nbytes,
        ),
        "qk norm + rope + KV write": (
            [lambda: qk_norm_rope_kv_write(qkv, cos, sin, norm, norm, 1e-6, pool, 1, slots)],
            2 * qkv.nbytes,
        ),
    }


def rows(bench: Bench) -> None:
    """At 8k tokens against the copy rate; at 64, where the launch is most of it, the time only."""
    for tokens, least in ((bench.pick(8192, 3), LEAST_COPY), (bench.pick(64, 1), None)):
        for name, (calls, size) in row_calls(bench, tokens).items():
            took = bench.gpu.timed(calls * 8)
            id = "T16" if least else ""
            bench.table.share(id, f"{name}, {tokens} tokens", took, size, "copy", least, detail=not least)


def copies(bench: Bench) -> None:
    """Pages of an 8B model (8 MiB each), within the device and from and to pinned memory; alone, then under load."""
    pages, layers = bench.pick(256, 6), bench.pick(32, 1)
    pool = random(bench, pages, layers, 2, bench.pick(8, 1), bench.pick(64, 16), bench.pick(128, 16))
    n = pages // 2
    order = torch.randperm(pages, device=bench.device)
    took = bench.gpu.timed([lambda: page_copy(pool, order[:n], order[n:])])
    size = n * pool[0].nbytes
    bench.table.share("T19", f"page copy of {n} pages", took, 2 * size, "copy", 0.90)
    host = bench.gpu.pinned(size).view(pool.dtype).view(n, *pool.shape[1:])
    places = order[:n].tolist()

    def to_device() -> None:
        for at, page in enumerate(places):
            pool[page].copy_(host[at], non_blocking=True)

    def to_host() -> None:
        for at, page in enumerate(places):
            host[at].copy_(pool[page], non_blocking=True)

    for name, call, ceiling in (("pages host to device", to_device, "h2d"), ("pages device to host", to_host, "d2h")):
        took = bench.gpu.timed_eagerly(call, repeats=5)
        bench.table.share("T19", name, took, size, ceiling, 0.90)


def sampler_calls(bench: Bench) -> dict[str, list[Call]]:
    """Draws for a batch of 64 over 128 k tokens, from four sets of logits in turn."""
    n, vocab = bench.pick(64, 2), bench.pick(128256, 500)
    logits = [torch.randn(n, vocab, device=bench.device) * 3 for _ in range(1 if bench.gpu.dry else 4)]
    column = torch.arange(n)
    seeds = {"seed": column * 7919, "position": column + 1}
    all_on = {
        "temperature": torch.full((n,), 0.8),
        "top_k": torch.full((n,), 50),
        "top_p": torch.full((n,), 0.95),
        "min_p": torch.full((n,), 0.02),
        **seeds,
        "bitmask": torch.randint(-(2**31), 2**31, (n, -(-vocab // 32))).int(),
    }
    off = {"top_k": torch.zeros(n, dtype=torch.int64), "top_p": torch.ones(n)}
    plain = {"temperature": torch.full((n,), 0.8), **off, **seeds}
    greedy = {**plain, "temperature": torch.zeros(n)}
    top_p = {**plain, "top_p": torch.full((n,), 0.9)}
    cases = {"top-k, top-p, min-p, mask": all_on, "top-p": top_p, "temperature": plain, "greedy": greedy}
    cases["mixed settings"] = settings(n)
    calls: dict[str, list[Call]] = {}
    for name, given in cases.items():
        there = moved(given, bench.device)
        calls[name] = [partial(sample, x, **there) for x in logits]
    return calls


def sampler(bench: Bench) -> None:
    """The draw against its target, and against sorting as most do it in torch."""
    first = True
    for name, calls in sampler_calls(bench).items():
        took = bench.gpu.timed(calls * 2)
        if first:
            peer = sorting(bench)
            bench.table.at_most("T17", f"sampler {name}, us", took.us, 70.0)
            bench.table.ratio("T17", f"sampler {name}", took, "torch sort", peer, 20.0)
        else:
            bench.table.share("", f"sampler {name}", took, 4 * bench.pick(64 * 128256, 1000), "read")
        first = False


def sorting(bench: Bench) -> Took:
    """Top-k, top-p and a draw by sorting all logits."""
    n, vocab = bench.pick(64, 2), bench.pick(128256, 500)
    logits = torch.randn(n, vocab, device=bench.device) * 3

    def draw() -> torch.Tensor:
        values, tokens = (logits / 0.8).sort(dim=-1, descending=True)
        values[:, 50:] = float("-inf")
        probabilities = values.softmax(-1)
        late = probabilities.cumsum(-1) - probabilities > 0.95
        chosen = (probabilities.masked_fill_(late, 0) / torch.empty_like(probabilities).exponential_()).argmax(-1)
        return tokens.gather(1, chosen[:, None])

    return bench.gpu.timed_eagerly(draw)


def moe_call(bench: Bench, tokens: int) -> tuple[list[Call], int, int]:
    """A layer of Qwen3-30B-A3B (128 experts of 768, 8 each): calls, bytes of the experts that are touched, flop."""
    count, hidden, width, top_k = bench.pick(128, 4), bench.pick(2048, 32), bench.pick(768, 32), bench.pick(8, 2)
    gate_up = random(bench, count, 2 * width, hidden).mul_(hidden**-0.5)
    down = random(bench, count, hidden, width).mul_(width**-0.5)
    x = random(bench, tokens, hidden)
    weights, ids = experts.route(torch.randn(tokens, count, device=bench.device), top_k, True)
    touched = len(torch.unique(ids))
    size = touched * 3 * hidden * width * x.element_size()
    flop = 2 * tokens * top_k * 3 * hidden * width
    return [lambda: experts.moe(x, gate_up, down, weights, ids)], size, flop


def moe(bench: Bench) -> None:
    """Decode is bound by reading experts, prefill by the tensor cores."""
    for tokens in (1, bench.pick(64, 2)):
        calls, size, _ = moe_call(bench, tokens)
        took = bench.gpu.timed(calls * 2)
        bench.table.share(
            "T20" if tokens > 1 else "", f"moe, {tokens} tokens", took, size, "copy", 0.80 if tokens > 1 else None
        )
    tokens = bench.pick(4096, 9)
    calls, _, flop = moe_call(bench, tokens)
    took = bench.gpu.timed(calls * 2)
    bench.table.share("T20", f"moe, {tokens} tokens", took, flop, "matmul", 0.70)
