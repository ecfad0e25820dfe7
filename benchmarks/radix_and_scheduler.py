"""What one call of the cache and the scheduler costs, and how the costs scale. Prints a table; no pass or fail.

    python -m benchmarks.radix_and_scheduler [--json FILE]

Times are of the processor, not of the clock on the wall, and depend on the machine; the ratios in the last column
should not. The largest cache takes about half a minute to fill.
"""

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from radix.cache import PrefixCache
from radix.hashing import Key, digest_blocks
from radix.packing import pack
from scheduler.plan import StepPlan, StepResult
from scheduler.request import NewRequest
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from scheduler.trace import token_block

PAGE_SIZE = 16
PROMPT_TOKENS = 8192
MILLION = 1_000_000
SYSTEM_BLOCKS, CONVERSATION_BLOCKS, SYSTEMS = 128, 40, 64


def best_us(call: Callable[[], object], repeat: int = 7, number: int = 20) -> float:
    """Microseconds of one call: the fastest of ``repeat`` averages over ``number`` calls."""
    times = []
    for _ in range(repeat):
        began = time.thread_time()
        for _ in range(number):
            call()
        times.append((time.thread_time() - began) / number)
    return min(times) * 1e6


def hash_prompt_us() -> tuple[float, float]:
    """Digests of a prompt from packed ids, and from its bytes, packing included."""
    tokens = token_block("prompt", PROMPT_TOKENS)
    packed = pack(tokens)
    return (
        best_us(lambda: digest_blocks(Key(packed, "", "", b"", 1, 0), PAGE_SIZE)),
        best_us(lambda: digest_blocks(Key(pack(tokens), "", "", b"", 1, 0), PAGE_SIZE)),
    )


def cached_prompt(cache: PrefixCache, tokens: bytes) -> Key:
    """Put a prompt into the cache; a new key for it."""
    key = cache.key(tokens)
    lease = cache.acquire(key)
    cache.extend(lease, len(tokens) // 4 // PAGE_SIZE - len(lease.pages))
    cache.publish(lease, len(tokens) // 4)
    cache.release(lease)
    return cache.key(tokens)


def match_prompt_us() -> tuple[float, float]:
    """``peek``, and ``acquire`` + ``release``, of a prompt that is cached whole, digests given."""
    cache = PrefixCache(1024, PAGE_SIZE)
    key = cached_prompt(cache, token_block("prompt", PROMPT_TOKENS))
    return best_us(lambda: cache.peek(key)), best_us(lambda: cache.release(cache.acquire(key)))


def evict_page_us(leaves: int) -> float:
    """One page out of a full pool in which every sequence has a page of its own; the victim is replaced each time."""
    cache = PrefixCache(leaves, PAGE_SIZE)
    for number in range(leaves):
        cached_prompt(cache, token_block(f"leaf {number}", PAGE_SIZE))
    lease = cache.acquire(cache.key(b""))
    return best_us(lambda: cache.extend(lease, 1), repeat=10, number=50)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(cache: PrefixCache, blocks: int) -> None:
    """Conversations under system prompts until ``blocks`` pages are cached."""
    number = 0
    while cache.stats().cached < blocks:
        system = token_block(f"system {number % SYSTEMS}", SYSTEM_BLOCKS * PAGE_SIZE)
        left = min(CONVERSATION_BLOCKS, blocks - cache.stats().cached)
        cached_prompt(cache, system + token_block(f"conversation {number}", left * PAGE_SIZE))
        number += 1


def bytes_per_block() -> tuple[float, PrefixCache]:
    """Memory of a cache of a million blocks, its pool included, and the cache."""
    gc.collect()
    before = resident_bytes()
    cache = PrefixCache(MILLION + 100_000, PAGE_SIZE)
    fill(cache, MILLION)
    token_block.cache_clear()
    gc.collect()
    return (resident_bytes() - before) / MILLION, cache


def decode_step_us(rows: int, cache: PrefixCache | None = None, waiting: int = 0) -> float:
    """``plan`` + ``commit`` of a step in which every row decodes, without the runner. Pages fill as usual."""
    settings = Settings(
        page_size=PAGE_SIZE,
        pages=cache.pool.total if cache else rows * 64,
        max_running=rows,
        max_step_tokens=rows * 64,
        max_context=PROMPT_TOKENS,
        max_waiting=waiting + rows,
        inter_token_s=0.05,
    )
    scheduler = Scheduler(settings, cache)
    for request in range(rows):
        scheduler.submit(NewRequest(request, token_block(f"prompt {request}", 33 + request % 16), 900), 0.0)

    def answer(plan: StepPlan | None) -> StepResult:
        if plan is None:
            raise RuntimeError("the benchmark ran out of work")
        return StepResult(plan.step, [[1] if chunk.emits else [] for chunk in plan.chunks])

    while scheduler.waiting:
        scheduler.commit(answer(scheduler.plan(0.0)), 0.0, 0.01)
    for request in range(waiting):
        scheduler.submit(NewRequest(rows + request, token_block(f"waiting {request % 100}", 64), 9), 0.0)
    for _ in range(waiting // rows + 3):
        scheduler.commit(answer(scheduler.plan(0.0)), 0.0, 0.01)
    spent = []
    for _ in range(15):
        total = 0.0
        for _ in range(PAGE_SIZE):
            began = time.thread_time()
            plan = scheduler.plan(0.0)
            planned = time.thread_time()
            result = answer(plan)
            answered = time.thread_time()
            scheduler.commit(result, 0.0, 0.01)
            total += planned - began + time.thread_time() - answered
        spent.append(total / PAGE_SIZE)
    if cache is not None:
        for request in range(rows + waiting):
            scheduler.cancel(request, 0.0)
    return min(spent) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    per_block, full = bytes_per_block()
    # A collection in the middle of a call is not what is measured; engines freeze what they start with.
    gc.collect()
    gc.disable()
    peek, acquire = match_prompt_us()
    few, many = evict_page_us(1_000), evict_page_us(100_000)
    # In turn, so that a machine that changes its speed meanwhile does not change the ratios.
    small = large = cached = crowded = float("inf")
    for _ in range(3):
        small, large = min(small, decode_step_us(64)), min(large, decode_step_us(256))
        cached = min(cached, decode_step_us(256, full))
        crowded = min(crowded, decode_step_us(256, waiting=10_000))
    blocks = PROMPT_TOKENS // PAGE_SIZE
    digest, whole = hash_prompt_us()
    rows = [
        (f"hash {PROMPT_TOKENS:,} tokens", digest, "us", f"{digest / blocks * 1e3:.0f} ns a block"),
        ("... and pack their ids", whole, "us", f"{whole / digest:.2f} times"),
        (f"peek {PROMPT_TOKENS:,} cached tokens", peek, "us", f"{peek / digest:.3f} of hashing"),
        (f"acquire + release {PROMPT_TOKENS:,} cached tokens", acquire, "us", f"{acquire / digest:.3f} of hashing"),
        ("evict a page, 1,000 leaves", few, "us", ""),
        ("evict a page, 100,000 leaves", many, "us", f"{many / few:.2f} times 1,000 leaves"),
        ("plan + commit, 64 decodes", small, "us", f"{small / 64:.2f} us a row"),
        ("plan + commit, 256 decodes", large, "us", f"{large / small:.2f} times 64 decodes"),
        ("... 1,000,000 blocks cached", cached, "us", f"{cached / large:.2f} times none"),
        ("... 10,000 requests waiting", crowded, "us", f"{crowded / large:.2f} times none"),
        ("memory of a cached block, 1,000,000 of them", per_block, "bytes", "8 digest + 4 page + 48 tokens = 60"),
    ]
    print(f"{platform.machine()}, Python {platform.python_version()}")
    for name, value, unit, note in rows:
        print(f"{name:46} {value:10.1f} {unit:5}  {note}")
    if options.json:
        options.json.write_text(json.dumps({name: value for name, value, _, _ in rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
