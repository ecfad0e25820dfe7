"""Workloads for the simulator: Mooncake traces, and prompts made of shared prefixes. No clocks, no model.

Sources: the trace format of Mooncake (arXiv 2407.00079): one JSON object per line with ``timestamp`` (ms),
``input_length``, ``output_length`` and ``hash_ids`` of blocks of 512 tokens. The names and defaults of the generated
workload are those of SGLang's generated-shared-prefix benchmark.
"""

import random
from collections.abc import Iterator
from functools import lru_cache
from hashlib import shake_128
from itertools import islice
from pathlib import Path

import msgspec

from radix.hashing import TOKEN_BYTES

MOONCAKE_BLOCK_TOKENS = 512


class TracedRequest(msgspec.Struct, frozen=True, gc=False):
    """``arrival``: seconds from the start; ``prompt``: little-endian uint32; ``output``: tokens to generate, >= 1."""

    arrival: float
    prompt: bytes
    output: int


class TraceError(Exception):
    """A trace cannot be read; the message names the file and the line."""


class _Line(msgspec.Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


@lru_cache(maxsize=4096)
def token_block(name: str, tokens: int) -> bytes:
    """Deterministic token ids for a name, as little-endian uint32 bytes."""
    return shake_128(name.encode()).digest(tokens * TOKEN_BYTES)


def read_mooncake(path: Path, limit: int | None = None, speed: float = 1.0) -> Iterator[TracedRequest]:
    """Requests of a Mooncake trace, one token block per hash id; ``speed`` 2.0 sends them twice as fast.

    Raises ``TraceError``.
    """
    decode = msgspec.json.Decoder(_Line).decode
    try:
        with path.open("rb") as file:
            for number, text in enumerate(islice(file, limit), 1):
                try:
                    line = decode(text)
                except msgspec.DecodeError as error:
                    raise TraceError(f"{path}, line {number}: {error}") from error
                if len(line.hash_ids) * MOONCAKE_BLOCK_TOKENS < line.input_length or line.input_length < 1:
                    raise TraceError(
                        f"{path}, line {number}: {len(line.hash_ids)} blocks for {line.input_length} input tokens"
                    )
                blocks = b"".join(token_block(f"block {name}", MOONCAKE_BLOCK_TOKENS) for name in line.hash_ids)
                prompt = blocks[: line.input_length * TOKEN_BYTES]
                yield TracedRequest(line.timestamp / 1000 / speed, prompt, max(line.output_length, 1))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error


def shared_prefixes(
    groups: int = 64,
    prompts_per_group: int = 16,
    system_tokens: int = 2048,
    question_tokens: int = 128,
    output_tokens: int = 256,
    rate: float = 0.0,
    zipf: float = 0.0,
    seed: int = 0,
) -> Iterator[TracedRequest]:
    """``groups * prompts_per_group`` requests in random order: the system prompt of a group and a question of its own.

    ``rate``: requests per second (Poisson), 0 for all at once. ``zipf``: exponent of the groups' popularity; with 0
    every group has exactly ``prompts_per_group``.
    """
    chance = random.Random(seed)
    count = groups * prompts_per_group
    if zipf > 0:
        weights = [1 / (rank + 1) ** zipf for rank in range(groups)]
        order = chance.choices(range(groups), weights, k=count)
    else:
        order = [group for group in range(groups) for _ in range(prompts_per_group)]
        chance.shuffle(order)
    arrival = 0.0
    for number, group in enumerate(order):
        prompt = token_block(f"system {group}", system_tokens) + token_block(f"question {number}", question_tokens)
        yield TracedRequest(arrival, prompt, output_tokens)
        if rate > 0:
            arrival += chance.expovariate(rate)
