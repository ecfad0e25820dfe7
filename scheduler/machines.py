"""Machines to simulate: cost models and sizes, with where their numbers come from. None replaces a measurement.

The notes are ``kernels.md`` of the design notes: an H200 with copy at 4.3 TB/s and bf16 products at 790 TFLOP/s, and
its "real efficiencies": products at 88 %, attention's reading at 90 %, 7 kernels a layer and 6 more, 1.3 us between
two kernels of a graph.
"""

import msgspec

from scheduler.cost import CostModel

_GEMM, _READ = 0.88, 0.90
_GAP_S = 1.3e-6
_COPY = 4.3e12  # bytes/s
_ATTENTION = 395e12  # FLOP/s, half of the products' 790: what the notes' prefill table assumes
_CHUNK = 2048


class Machine(msgspec.Struct, frozen=True):
    """``kv_tokens``: tokens that its memory holds keys and values for. ``max_running``, ``max_step_tokens``: as in
    ``Settings``. ``loads``: requests/s between little and too much in a chat, to start with."""

    name: str
    cost: CostModel
    kv_tokens: int
    max_running: int
    max_step_tokens: int
    loads: tuple[float, ...]


def _h200(weights_s: float, limit: float, kv_bytes: int, layers: int, heads: int, head_dim: int) -> CostModel:
    """``weights_s``: seconds to read the weights once; ``limit``: most prompt tokens/s by the products alone;
    ``kv_bytes``: keys and values of a token.

    a  weights once, and the gaps between kernels
    b  products of a token. Small batches hide them behind the reading of the weights (the longer of both, not the
       sum): b is chosen so that a step of 2,048 tokens takes what the limit says; then steps of around 200 tokens that
       read little KV come out too long, by up to 1.8 times
    c  keys and values of a token read once
    d  two products of 2 FLOP for each head, dimension and layer
    """
    weights = weights_s / _GEMM
    return CostModel(
        a=weights + (7 * layers + 6) * _GAP_S,
        b=1 / (limit * _GEMM) - weights / _CHUNK,
        c=kv_bytes / _COPY / _READ,
        d=4 * heads * head_dim * layers / _ATTENTION,
    )


# Notes, table of limits: 3.49 ms, 57k tokens/s, 128 KiB; 135 GB less 15 GB of weights. Its floor for 64 decodes at 4k
# is 11.5 ms and its prefill limit at 2k attended tokens 49k tokens/s; with the efficiencies they are 14.3 ms and 44k.
H200_8B = Machine(
    "h200-8b",
    _h200(3.49e-3, 57e3, 128 * 1024, layers=32, heads=32, head_dim=128),
    kv_tokens=915_000,
    max_running=256,
    max_step_tokens=2048,
    loads=(8.0, 16.0, 32.0, 64.0),
)

# Notes, the same table for Llama-3.2-1B: 0.575 ms, 406k tokens/s, 32 KiB; 2.5 GB of weights.
H200_1B = Machine(
    "h200-1b",
    _h200(0.575e-3, 406e3, 32 * 1024, layers=16, heads=32, head_dim=64),
    kv_tokens=4_000_000,
    max_running=256,
    max_step_tokens=2048,
    loads=(32.0, 64.0, 128.0, 256.0),
)

# benchmarks/results/2026-11-24-chat-135m, Banyan in bf16 on 2 cores of an AMD EPYC, solved for the four numbers:
#   decode alone, context about 170: 17.2 ms a token            a +      b +      170 c
#   decode of 16, context about 172: 33.0 ms                    a + 16   b + 16 * 172 c
#   prompts of 91-122 tokens: 0.415 ms a token without a        b +  55 d
#   6 prompts of 1,090 tokens: 0.649 ms a token without a       b + 545 d      (15 steps of a; reads 36 ms in all)
# Keys and values of a token take 23 KB: 1.5 GB of them.
CPU_135M = Machine(
    "cpu-135m",
    CostModel(a=16.1e-3, b=0.389e-3, c=3.9e-6, d=0.478e-6),
    kv_tokens=65_536,
    max_running=64,
    max_step_tokens=512,
    loads=(0.25, 0.5, 1.0, 2.0),
)

MACHINES: dict[str, Machine] = {machine.name: machine for machine in (CPU_135M, H200_8B, H200_1B)}
