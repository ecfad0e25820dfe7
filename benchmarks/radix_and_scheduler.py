"""What one call of the cache and the scheduler costs, and how the costs scale. Prints a table; no pass or fail.

    python -m benchmarks.radix_and_scheduler

Times depend on the machine; the ratios in the last column should not.
"""

import time
from collections.abc import Callable

from radix.cache import PrefixCache
from radix.hashing import Key, digest_blocks
from scheduler.plan import StepPlan, StepResult
from scheduler.request import NewRequest
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from scheduler.trace import token_block

PAGE_SIZE = 16
PROMPT_TOKENS = 8192


def best_us(call: Callable[[], object], repeat: int = 7, number: int = 20) -> float:
    """Microseconds of one call: the fastest of ``repeat`` averages over ``number`` calls."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - began) / number)
    return min(times) * 1e6


def hash_prompt_us() -> float:
    """Digests of a prompt from its bytes."""
    tokens = token_block("prompt", PROMPT_TOKENS)
    return best_us(lambda: digest_blocks(Key(tokens, "", 1), PAGE_SIZE))


def cached_prompt(cache: PrefixCache, tokens: bytes) -> Key:
    """Put a prompt into the cache; a new key for it."""
    lease = cache.acquire(cache.key(tokens))
    cache.extend(lease, len(tokens) // 4 // PAGE_SIZE)
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
    count = min(leaves // 2, 500)
    return best_us(lambda: cache.extend(lease, 1), repeat=1, number=count)


def decode_step_us(rows: int) -> float:
    """``plan`` + ``commit`` of a step in which every row decodes, without the runner. Pages fill as usual."""
    settings = Settings(
        page_size=PAGE_SIZE, pages=rows * 64, max_running=rows, max_step_tokens=rows * 64, max_context=PROMPT_TOKENS
    )
    scheduler = Scheduler(settings)
    for request in range(rows):
        scheduler.submit(NewRequest(request, token_block(f"prompt {request}", 33 + request % 16), 900), 0.0)

    def answer(plan: StepPlan | None) -> StepResult:
        if plan is None:
            raise RuntimeError("the benchmark ran out of work")
        return StepResult(plan.step, [[1] if chunk.emits else [] for chunk in plan.chunks])

    for _ in range(3):
        scheduler.commit(answer(scheduler.plan(0.0)), 0.0)
    spent = []
    for _ in range(10):
        total = 0.0
        for _ in range(PAGE_SIZE):
            began = time.perf_counter()
            plan = scheduler.plan(0.0)
            planned = time.perf_counter()
            result = answer(plan)
            answered = time.perf_counter()
            scheduler.commit(result, 0.0)
            total += planned - began + time.perf_counter() - answered
        spent.append(total / PAGE_SIZE)
    return min(spent) * 1e6


def main() -> None:
    """Measure and print."""
    peek, acquire = match_prompt_us()
    few, many = evict_page_us(1_000), evict_page_us(100_000)
    small, large = decode_step_us(64), decode_step_us(256)
    blocks = PROMPT_TOKENS // PAGE_SIZE
    digest = hash_prompt_us()
    rows = [
        (f"hash {PROMPT_TOKENS:,} tokens", digest, f"{digest / blocks * 1e3:.0f} ns a block"),
        (f"peek {PROMPT_TOKENS:,} cached tokens", peek, f"{peek / digest:.3f} of hashing"),
        (f"acquire + release {PROMPT_TOKENS:,} cached tokens", acquire, f"{acquire / digest:.3f} of hashing"),
        ("evict a page, 1,000 leaves", few, ""),
        ("evict a page, 100,000 leaves", many, f"{many / few:.2f} times 1,000 leaves"),
        ("plan + commit, 64 decodes", small, f"{small / 64:.2f} us a row"),
        ("plan + commit, 256 decodes", large, f"{large / small:.2f} times 64 decodes"),
    ]
    for name, microseconds, note in rows:
        print(f"{name:42} {microseconds:10.1f} us   {note}")


if __name__ == "__main__":
    main()
