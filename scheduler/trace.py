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
from math import log
from pathlib import Path

import msgspec

from radix.packing import PACKED_BYTES, TOKEN_BYTES, unpack

MOONCAKE_BLOCK_TOKENS = 512
GOES_ON = 0
STOP = 1
"""The tokens of every answer in the simulator: ``GOES_ON`` until its last one, which is ``STOP``."""


class TracedRequest(msgspec.Struct, frozen=True, gc=False):
    """What arrives and how long its answer will be.

    arrival         seconds from the start
    prompt          little-endian uint32 ids
    output          tokens that it generates, the stop token included; at least 1
    max_tokens      most that it may generate, which is all that a server knows; 0: ``output``
    tenant, system_tokens, history_tokens   as in ``NewRequest``
    """

    arrival: float
    prompt: bytes
    output: int
    max_tokens: int = 0
    tenant: str = ""
    system_tokens: int = 0
    history_tokens: int = 0


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
    return unpack(shake_128(name.encode()).digest(tokens * PACKED_BYTES))


def random_tokens(chance: random.Random, tokens: int) -> bytes:
    """Token ids that nobody else has, as little-endian uint32 bytes."""
    return unpack(chance.randbytes(tokens * PACKED_BYTES))


def read_mooncake(path: Path, limit: int | None = None, speed: float = 1.0) -> Iterator[TracedRequest]:
    """Requests of a Mooncake trace, one token block per hash id; ``speed`` 2.0 sends them twice as fast.

    The trace says nothing of tenants, nor which blocks are the system prompt. Raises ``TraceError``.
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


def lognormal_length(chance: random.Random, median: float, sigma: float, most: int) -> int:
    """A length in tokens, 1..``most``: lognormal, ``sigma`` of its logarithm; 0: always the median."""
    length = chance.lognormvariate(log(median), sigma) if sigma else median
    return max(min(round(length), most), 1)


def shared_prefixes(
    groups: int = 64,
    prompts_per_group: int = 16,
    system_tokens: int = 2048,
    question_tokens: int = 128,
    output_tokens: int = 256,
    rate: float = 0.0,
    zipf: float = 0.0,
    output_sigma: float = 0.0,
    max_tokens: int = 0,
    tenants: int = 0,
    seed: int = 0,
) -> Iterator[TracedRequest]:
    """``groups * prompts_per_group`` requests in random order: the system prompt of a group and a question of its own.

    ``rate``: requests per second (Poisson), 0 for all at once. ``zipf``: exponent of the groups' popularity; with 0
    every group has exactly ``prompts_per_group``. ``output_sigma`` > 0: answers of lognormal length with the median
    ``output_tokens``, at most ``max_tokens`` (0: eight times the median). ``tenants``: that the groups belong to, 0:
    each group is a tenant.
    """
    chance = random.Random(seed)
    most = max_tokens or (8 * output_tokens if output_sigma else output_tokens)
    owners = tenants or groups
    count = groups * prompts_per_group
    if zipf > 0:
        order = chance.choices(range(groups), zipf_weights(groups, zipf), k=count)
    else:
        order = [group for group in range(groups) for _ in range(prompts_per_group)]
        chance.shuffle(order)
    arrival = 0.0
    for group in order:
        prompt = token_block(f"system {group}", system_tokens) + random_tokens(chance, question_tokens)
        output = lognormal_length(chance, output_tokens, output_sigma, most)
        yield TracedRequest(arrival, prompt, output, most, f"tenant {group % owners}", system_tokens)
        if rate > 0:
            arrival += chance.expovariate(rate)


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Popularity by rank: 1 / rank ** exponent."""
    return [1 / (rank + 1) ** exponent for rank in range(count)]
