"""The chat workload: tenants with system prompts, conversations of several turns, people who think in between.

Generated as it is asked for, in the order of arrival: memory grows with the conversations that are open at one time,
not with the number of requests. An open loop: the next turn comes a think time after the turn before it *arrived*,
whether or not that one was answered by then, so a server that is too slow gets the load all the same.
"""

import heapq
import random
from collections.abc import Iterator
from itertools import accumulate, count

import msgspec

from radix.packing import TOKEN_BYTES
from scheduler.trace import GOES_ON, STOP, TracedRequest, lognormal_length, random_tokens, token_block, zipf_weights

_GOES_ON = GOES_ON.to_bytes(TOKEN_BYTES, "little")
_STOP = STOP.to_bytes(TOKEN_BYTES, "little")


class ChatShape(msgspec.Struct, frozen=True):
    """Sizes of the workload.

    requests         turns of all conversations together
    rate             requests per second, once as many conversations end as begin (after a few times ``turns`` times
                     ``think_s``; before, there are fewer)
    burstiness       coefficient of variation of the times between conversations: 1 is Poisson, more is burstier (gamma)
    tenants, zipf    how many, and the exponent of their popularity
    system_tokens    length of a system prompt
    public_prompts   0: each tenant has a system prompt of its own. Else so many are public, and tenants share them
    turns            mean number of turns of a conversation (geometric)
    think_s          mean seconds between two turns of a conversation (exponential)
    question_tokens, question_sigma   lognormal: median length, sigma of its logarithm
    output_tokens, output_sigma       ... of the answers, the stop token included
    max_tokens       most that an answer may have; the server knows only this
    max_context      a conversation that would grow beyond ends
    """

    requests: int = 2000
    rate: float = 1.0
    burstiness: float = 1.0
    tenants: int = 16
    zipf: float = 1.0
    system_tokens: int = 1024
    public_prompts: int = 0
    turns: float = 3.0
    think_s: float = 10.0
    question_tokens: float = 32.0
    question_sigma: float = 0.8
    output_tokens: float = 96.0
    output_sigma: float = 1.0
    max_tokens: int = 1024
    max_context: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            least = (
                1.0
                if name in ("requests", "tenants", "turns", "max_tokens", "question_tokens", "output_tokens")
                else 0.0
            )
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number from {least:g}, got {getattr(self, name)}")
        if not self.rate or not self.burstiness:
            raise ValueError("rate and burstiness must be above 0")
        if self.system_tokens + self.question_tokens + self.max_tokens > self.max_context:
            raise ValueError("a system prompt, a question and the longest answer do not fit into max_context")


class _Conversation:
    """One that goes on: everything said so far."""

    __slots__ = ("history", "tenant")

    def __init__(self, tenant: int, history: bytes) -> None:
        self.tenant = tenant
        self.history = history


def system_prompt(shape: ChatShape, tenant: int) -> bytes:
    """The system prompt of a tenant, as little-endian uint32 ids."""
    number = tenant % shape.public_prompts if shape.public_prompts else tenant
    return token_block(f"prompt {number}", shape.system_tokens)


def public_prompts(shape: ChatShape) -> list[bytes]:
    """The system prompts that everybody may share."""
    return [system_prompt(shape, number) for number in range(shape.public_prompts)]


def chat(shape: ChatShape) -> Iterator[TracedRequest]:
    """The requests in the order of arrival. O(log open conversations) and O(history) each."""
    chance = random.Random(shape.seed)
    popularity = list(accumulate(zipf_weights(shape.tenants, shape.zipf)))
    going_on: list[tuple[float, int, _Conversation]] = []
    numbers = count()
    begins = 0.0
    for _ in range(shape.requests):
        if going_on and going_on[0][0] <= begins:
            arrival, _, talk = heapq.heappop(going_on)
        else:
            arrival = begins
            (tenant,) = chance.choices(range(shape.tenants), cum_weights=popularity)
            talk = _Conversation(tenant, system_prompt(shape, tenant))
            begins += _until_next_conversation(shape, chance)
        request = _turn(shape, chance, arrival, talk)
        yield request
        if chance.random() * shape.turns >= 1:  # so that `turns` is the mean
            talk.history = request.prompt + _GOES_ON * (request.output - 1) + _STOP
            if len(talk.history) // TOKEN_BYTES + shape.question_tokens + shape.max_tokens <= shape.max_context:
                think = chance.expovariate(1 / shape.think_s) if shape.think_s else 0.0
                heapq.heappush(going_on, (arrival + think, next(numbers), talk))


def _until_next_conversation(shape: ChatShape, chance: random.Random) -> float:
    spread = shape.burstiness**2
    return chance.gammavariate(1 / spread, spread * shape.turns / shape.rate)


def _turn(shape: ChatShape, chance: random.Random, arrival: float, talk: _Conversation) -> TracedRequest:
    known = len(talk.history) // TOKEN_BYTES
    room = shape.max_context - known - shape.max_tokens
    question = lognormal_length(chance, shape.question_tokens, shape.question_sigma, room)
    output = lognormal_length(chance, shape.output_tokens, shape.output_sigma, shape.max_tokens)
    return TracedRequest(
        arrival,
        talk.history + random_tokens(chance, question),
        output,
        shape.max_tokens,
        f"tenant {talk.tenant}",
        shape.system_tokens,
        known,
    )
