"""One step in plain numbers: what the scheduler asks of the runner, and what comes back.

No tensors and no objects shared between the two sides: a plan can be encoded, broadcast to ranks, or answered by a
simulator. A request has no *phase*: prefill, decode and resumption after preemption are all chunks of "tokens minus
computed".
"""

import msgspec


class Sampling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a slot draws its tokens. The scheduler carries it and never reads it.

    A draw is a function of (seed, position, logits) only, so it does not depend on the batch or on preemption.
    ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1.0 switch the cut off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class Opened(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A slot (row of the runner's block table) is given to a request; all that the slot held before is reset.

    ``cached`` is the number of prompt tokens whose keys and values were found in the cache.
    ``resumed`` is True when the request ran before and was preempted.
    """

    slot: int
    request: int
    sampling: Sampling
    cached: int
    resumed: bool = False


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Consecutive tokens of one request, computed in this step.

    request    engine-wide id
    slot       row of the block table
    start      position of the first token
    tokens     ids, little-endian uint32; position ``start + i`` for the i-th. At least one
    emits      sample one token from the logits of the last position
    new_pages  page ids appended to the slot's block table before the step (append-only while the slot is open)
    held       the first ``held`` tokens have their keys and values in pages already (shared with others): compute them,
               do not write them. Used when a prompt is completely cached and only its last logits are missing
    chain      the first token is the one that this slot samples in the step now running (``tokens`` holds zeros for it)
    """

    request: int
    slot: int
    start: int
    tokens: bytes
    emits: bool
    new_pages: list[int] = []
    held: int = 0
    chain: bool = False

    @property
    def count(self) -> int:
        """Number of tokens computed."""
        return len(self.tokens) // 4


class StepPlan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the runner does in one step, in this order: close ``freed`` slots, open ``opened``, compute ``chunks``."""

    step: int
    chunks: list[Chunk]
    opened: list[Opened] = []
    freed: list[int] = []


class StepResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to a plan. ``tokens[i]`` are the tokens sampled for ``chunks[i]`` (empty when it does not emit).

    ``failures`` maps a request id to a message: that request alone failed, the others' results stand.
    """

    step: int
    tokens: list[list[int]]
    failures: dict[int, str] = {}


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a step meant for one request: its new output tokens (a final stop token included) and, at the end, why it
    ended.

    ``finish`` is ``""`` (goes on), ``"stop"`` (a stop token was sampled), ``"length"``, ``"deadline"`` or ``"error"``
    (the last two say why in ``message``).
    """

    request: int
    tokens: list[int]
    finish: str = ""
    message: str = ""
