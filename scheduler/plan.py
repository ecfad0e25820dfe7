"""One step in plain numbers: what the scheduler asks of the runner, and what comes back.

No tensors and no objects shared between the two sides: a plan can be encoded, broadcast to ranks, or answered by a
simulator. A request has no *phase*: prefill, decode and resumption after preemption are all chunks of "tokens minus
computed".
"""

import msgspec


class Sampling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a slot draws its tokens, with ``kernels.sample``'s meanings. The scheduler carries it and reads only whether
    the runner has to know the tokens so far.

    A draw is a function of (seed, position, logits, tokens so far) only, so it does not depend on the batch or on
    preemption. ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1.0 and ``min_p`` 0 switch the cut off.
    ``logit_bias``: by token id. ``logprobs``: report each drawn token's log-probability and that many alternatives;
    None for nothing. ``prompt_logprobs``: likewise for each token of the prompt but the first; all of the prompt is
    computed for it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def penalises(self) -> bool:
        """Whether a draw depends on the tokens so far."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A token's natural log-probability under the model's own logits, and the most probable tokens with theirs, the
    most probable first."""

    logprob: float
    top_tokens: list[int]
    top_logprobs: list[float]


class Opened(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A slot (row of the runner's block table) is given to a request; all that the slot held before is reset.

    ``cached`` is the number of prompt tokens whose keys and values were found in the cache.
    ``resumed`` is True when the request ran before and was preempted. ``tokens``: all that are known, as in ``Chunk``,
    the first ``prompt_tokens`` of them the prompt; empty unless ``sampling`` depends on them.
    """

    slot: int
    request: int
    sampling: Sampling
    cached: int
    resumed: bool = False
    tokens: bytes = b""
    prompt_tokens: int = 0


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

    ``failures`` maps a request id to a message: that request alone failed, the others' results stand. ``logprobs`` has
    an entry for each token of the requests that asked for them, ``prompt_logprobs`` for each token but the first of the
    prompts that are now computed to their end.
    """

    step: int
    tokens: list[list[int]]
    failures: dict[int, str] = {}
    logprobs: dict[int, tuple[TokenLogprobs, ...]] = {}
    prompt_logprobs: dict[int, tuple[TokenLogprobs, ...]] = {}


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a step meant for one request: its new output tokens (a final stop token included) and, at the end, why it
    ended.

    ``finish`` is ``""`` (goes on), ``"stop"`` (a stop token was sampled), ``"length"``, ``"deadline"``, ``"quota"``
    or ``"error"`` (the last three say why in ``message``). ``logprobs``: one for each token, when the request asked
    for them; ``prompt_logprobs``: with the first token, one for each of the prompt but its first.
    """

    request: int
    tokens: list[int]
    finish: str = ""
    message: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
