"""Several answers of one HTTP request, as they come out of the engine. Knows engine events and replies; no protocol.

All are released at once: when the last has ended, one has failed, or the client has gone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from backend.engine.messages import Output, Started, Submit
from backend.errors import BanyanError, EngineError
from backend.server.completion_types import CompletionUsage, PromptTokensDetails
from backend.server.errors import failure
from backend.server.logprobs import ShownToken
from backend.server.reply import Reply
from backend.server.service import ChatService, MeasuredGeneration


class Piece(NamedTuple):
    """More of the answer ``choice``: text, the log-probabilities of tokens that begin in it (when asked for), and
    whether it has ended."""

    choice: int
    text: str
    logprobs: list[ShownToken]
    ended: bool


class Choices:
    """``asked``: engine requests and the replies that take their tokens, ``n`` in a row with the same prompt."""

    def __init__(
        self, service: ChatService, asked: Sequence[tuple[Submit, Reply]], n: int, began: float, operation: str = "chat"
    ) -> None:
        """``operation``: their name in traces. Raises ``BanyanError`` when the engine does not take them; none is left
        then."""
        self.replies = [reply for _, reply in asked]
        self._n = n
        self._service = service
        self._generations: list[MeasuredGeneration] = []
        self._next: dict[asyncio.Future[Started | Output], int] = {}
        self._held: list[tuple[int, Started | Output]] = []
        try:
            for submit, _ in asked:
                self._generations.append(service.generate(submit, began, operation))
        except BanyanError:
            self.release()
            raise
        self._events = self._merged()

    def release(self) -> None:
        """Free everything at once; idempotent."""
        for generation in self._generations:
            generation.cancel()
        for task in self._next:
            task.cancel()

    async def first(self) -> None:
        """Wait until the engine has begun. Raises ``BanyanError`` when it fails or refuses before.

        Nothing has been computed when the time of queueing is over before that. There is no answer that could be called
        short then: it is a refusal like the one of a request whose wait is foreseen.
        """
        found = await anext(self._events, None)
        if found is None:
            raise EngineError("the engine ended the request without a word")
        _, event = found
        _check(event)
        if isinstance(event, Output) and event.finish == "deadline":
            raise BanyanError(event.message, code="server_overloaded", status=503)
        self._held.append(found)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Until all have ended. Raises ``BanyanError`` when one fails."""
        left = len(self.replies)
        async for index, event in self._all_events():
            _check(event)
            reply = self.replies[index]
            if isinstance(event, Started):
                reply.started(event)
                continue
            if reply.finish:
                continue
            known = len(reply.logprobs)
            text = reply.output(event, self._service.clock())
            if reply.finish:
                self._generations[index].cancel()  # after a stop string the engine would go on
                left -= 1
            yield Piece(index, text, reply.logprobs[known:], bool(reply.finish))
            if not left:
                self.release()
                return
        raise EngineError("the engine ended the request without a word")

    def finish_reason(self, index: int) -> str:
        """OpenAI's word for why an answer ended."""
        return "stop" if self.replies[index].finish == "stop" else "length"

    def usage(self) -> CompletionUsage:
        """Each prompt counts once, with what the first of its answers found cached: the others found all of it. Times
        are those of the first answer."""
        firsts = self.replies[:: self._n]
        prompt_tokens = sum(reply.prompt_tokens for reply in firsts)
        output_tokens = sum(len(reply.tokens) for reply in self.replies)
        return CompletionUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=output_tokens,
            total_tokens=prompt_tokens + output_tokens,
            prompt_tokens_details=PromptTokensDetails(sum(reply.cached for reply in firsts)),
            x_timing=firsts[0].usage().x_timing,
        )

    async def _all_events(self) -> AsyncIterator[tuple[int, Started | Output]]:
        for found in self._held:
            yield found
        async for found in self._events:
            yield found

    async def _merged(self) -> AsyncIterator[tuple[int, Started | Output]]:
        """Events of all generations with their indices, each generation's in order."""
        if len(self._generations) == 1:  # no task for each event
            async for event in self._generations[0]:
                yield 0, event
            return
        iterators = [aiter(generation) for generation in self._generations]
        for index, iterator in enumerate(iterators):
            self._next[asyncio.ensure_future(anext(iterator))] = index
        while self._next:
            done, _ = await asyncio.wait(self._next, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=self._next.__getitem__):
                index = self._next.pop(task)
                try:
                    event = task.result()
                except StopAsyncIteration:
                    continue
                self._next[asyncio.ensure_future(anext(iterators[index]))] = index
                yield index, event


def _check(event: Started | Output) -> None:
    if isinstance(event, Output) and event.finish == "error":
        raise failure(event)
