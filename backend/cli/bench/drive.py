"""Plays a workload against a target: who may send when, and what happens when something fails. Knows no protocol.

Closed loop: at most ``concurrency`` conversations are open, and a turn goes out when the one before is complete.
With a rate, conversations start at their arrival times however many are open.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from backend.cli.bench.statistics import Observation
from backend.cli.bench.target import AnswerFailed, Dialogue, Target
from backend.cli.bench.workload import Conversation, Shape, Turn, draw_text

CALIBRATION_WORDS = (16, 144)


class Drive:
    """One run. ``seen`` holds an observation for every request sent so far, whatever became of it."""

    def __init__(self, target: Target, timeout_s: float, on_ended: Callable[[Observation], None]) -> None:
        self.seen: list[Observation] = []
        self._target = target
        self._timeout_s = timeout_s
        self._on_ended = on_ended

    async def run(self, conversations: Sequence[Conversation], shape: Shape) -> None:
        """Play all conversations. A failed turn ends its conversation; the others go on."""
        gate = asyncio.Semaphore(shape.concurrency if shape.rate == 0 else max(1, len(conversations)))
        start = time.perf_counter()

        async def play(conversation: Conversation) -> None:
            await asyncio.sleep(start + conversation.arrival_s - time.perf_counter())
            async with gate:
                await self._converse(conversation)

        async with asyncio.TaskGroup() as group:
            for conversation in conversations:
                group.create_task(play(conversation))

    async def _converse(self, conversation: Conversation) -> None:
        dialogue: Dialogue | None = None
        try:
            for number, turn in enumerate(conversation.turns):
                seen = self._sent(conversation, number, turn)
                try:
                    async with asyncio.timeout(self._timeout_s):
                        dialogue = dialogue or await self._target.open(conversation.system)
                        await dialogue.say(turn, seen)
                except Exception as error:  # whatever it is: a failed request is counted, never hidden
                    seen.error = describe(error)
                except asyncio.CancelledError:
                    seen.error = "interrupted"
                    raise
                finally:
                    seen.ended_s = time.perf_counter()
                    self._on_ended(seen)
                if seen.error:
                    return
        finally:
            if dialogue is not None:
                await dialogue.close()

    def _sent(self, conversation: Conversation, number: int, turn: Turn) -> Observation:
        seen = Observation(conversation.id, number, conversation.tenant, turn.max_tokens, sent_s=time.perf_counter())
        self.seen.append(seen)
        return seen


def describe(error: Exception) -> str:
    """What the report counts failures by."""
    if isinstance(error, AnswerFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return "timeout"
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def tokens_per_word(target: Target) -> float | None:
    """How many tokens the server makes of one of our words: from the usage of two short requests; None without usage.

    Raises what the target raises when it cannot be reached or refuses. These requests also wake the server up.
    """
    few, many = CALIBRATION_WORDS
    counted = [await _prompt_tokens(target, words) for words in (few, many)]
    if counted[0] is None or counted[1] is None or counted[1] <= counted[0]:
        return None
    return (counted[1] - counted[0]) / (many - few)


async def _prompt_tokens(target: Target, words: int) -> int | None:
    dialogue = await target.open("hello")
    try:
        seen = Observation(0, 0, 0, 2, 0.0)
        await dialogue.say(Turn(draw_text(random.Random(words), words, 1.0), 2), seen)
        return seen.prompt_tokens
    finally:
        await dialogue.close()
