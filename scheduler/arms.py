"""Banyan and the systems it stands on, as combinations of small policies, to be compared in the same code.

    shared      pages on demand, shared by prefix (this project)
    paged       pages on demand, nothing shared, prompts in one piece: vLLM as in its paper (arXiv 2309.06180)
    continuous  iteration-level batching, memory for the longest possible output set aside at the start: Orca (OSDI 22)
    static      the same memory, and a batch that takes nobody in until its slowest has ended: FasterTransformer

A setting picks one; the loop does not know which.
"""

from collections.abc import Callable
from typing import NamedTuple

from radix.cache import PrefixCache
from radix.unshared import UnsharedCache
from scheduler.admission import Admission, OnDemand, WorstCase
from scheduler.chunking import StepBudget, TimeBudget, TokenBudget, WholePrompts


class Arm(NamedTuple):
    """``cache``: class of the cache; ``admission``: who may start, and with how many pages; ``budget``: how much of a
    prompt is in a step, of (most tokens of a step, aim for its seconds, page size)."""

    cache: type[PrefixCache]
    admission: Callable[[], Admission]
    budget: Callable[[int, float, int], StepBudget]


def _chunked(tokens: int, seconds: float, page_size: int) -> StepBudget:
    return TimeBudget(tokens, seconds, page_size) if seconds else TokenBudget(tokens)


def _whole_prompts(tokens: int, seconds: float, page_size: int) -> StepBudget:
    return WholePrompts(tokens)


def _whole_batch(tokens: int, seconds: float, page_size: int) -> StepBudget:
    return WholePrompts(1 << 62)


ARMS: dict[str, Arm] = {
    "shared": Arm(PrefixCache, OnDemand, _chunked),
    "paged": Arm(UnsharedCache, OnDemand, _whole_prompts),
    "continuous": Arm(UnsharedCache, WorstCase, _whole_prompts),
    "static": Arm(UnsharedCache, lambda: WorstCase(whole_batches=True), _whole_batch),
}
