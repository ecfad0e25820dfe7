"""What the two protocols of completions share: a question in, its answers out, whole or as server-sent events.

Knows HTTP, the service and ``Choices``. Knows no field of either protocol but ``model``, ``stream`` and the usage.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from backend.errors import BanyanError
from backend.server.choices import Choices, Piece
from backend.server.completion_types import CompletionUsage, StreamOptions
from backend.server.errors import ErrorResponse, body_of, decoding
from backend.server.identity import Identity, identity_of
from backend.server.json_http import json_response, read_body
from backend.server.sampling import Options
from backend.server.service import ChatService
from backend.server.sse import event_stream, sse_data, whole
from backend.text.conversation import Prompt

_INLINE_BYTES = 16_384  # read within a few ms; more is read in a thread so that other streams do not wait
_encode = msgspec.json.Encoder().encode


class Body(Protocol):
    """A request's body."""

    @property
    def model(self) -> str: ...

    @property
    def stream(self) -> bool | None: ...

    @property
    def stream_options(self) -> StreamOptions | None: ...


AnyBody = TypeVar("AnyBody", bound=Body)


class Question(NamedTuple):
    """A checked request. Each of ``prompts`` gets ``options.n`` answers; ``param``: the field that they came in;
    ``operation``: what traces call it."""

    prompts: list[Prompt]
    options: Options
    param: str
    operation: str
    texts: tuple[str, ...] = ()  # of the prompts, where they are shown


class Completion(Protocol):
    """One completion in its protocol's words. Made with service, body, question and choices."""

    def whole(self) -> msgspec.Struct:
        """The answer, when all choices have ended."""
        ...

    def opening(self) -> Iterator[msgspec.Struct]:
        """Choices of chunks before the first piece."""
        ...

    def more(self, piece: Piece) -> Iterator[msgspec.Struct]:
        """Choices of chunks that ``piece`` becomes."""
        ...

    def chunk(self, choices: list[Any], usage: CompletionUsage | UnsetType | None) -> msgspec.Struct:
        """One event."""
        ...

    def usage(self) -> CompletionUsage:
        """Of all choices, when they have ended."""
        ...


def completion_route(
    body_type: type[AnyBody],
    read: Callable[[ChatService, Identity, AnyBody], Question],
    made: Callable[[ChatService, AnyBody, Question, Choices], Completion],
) -> Callable[[Request], Awaitable[ASGIApp]]:
    """A route. ``read`` checks a body and makes prompts, maybe in a thread; it and the route raise ``BanyanError``,
    which the app turns into an answer."""
    decoder = msgspec.json.Decoder(body_type)

    async def route(request: Request) -> ASGIApp:
        service: ChatService = request.app.state.service
        began = service.clock()
        body = await read_body(request, service.limits.message_bytes)
        asked = decoding(lambda: decoder.decode(body))
        service.model.check_name(asked.model)
        identity = identity_of(request.scope)
        reading = partial(read, service, identity, asked)
        question = await asyncio.to_thread(reading) if len(body) > _INLINE_BYTES else reading()
        choices = _ask(service, identity, question, began)
        completion = made(service, asked, question, choices)
        if not asked.stream:
            return whole(partial(_whole, completion, choices), choices.release)
        try:
            await choices.first()  # so that what fails before the first token still gets a status of its own
        except BaseException:
            choices.release()
            raise
        include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return event_stream(_events(completion, choices, include_usage), choices.release)

    return route


def _ask(service: ChatService, identity: Identity, question: Question, began: float) -> Choices:
    """Hand all to the engine. Raises ``BanyanError``; nothing is left then."""
    model, answers = service.model, []
    for prompt in question.prompts:
        for index in range(question.options.n):
            choice = question.options.choice(index)
            request = service.engine.next_request_id()
            submit = model.submit(request, prompt, choice, param=question.param, identity=identity)
            answers.append((submit, model.reply(len(prompt.ids), choice, began)))
    return Choices(service, answers, question.options.n, began, question.operation)


async def _whole(completion: Completion, choices: Choices) -> Response:
    await choices.first()
    async for _ in choices.pieces():
        pass
    return json_response(completion.whole())


async def _events(completion: Completion, choices: Choices, include_usage: bool) -> AsyncIterator[bytes]:
    """A failure within is an ``error`` object, as OpenAI's clients expect."""
    not_yet = None if include_usage else UNSET  # OpenAI: null in every chunk but the last, when asked for

    def event(choices: list[Any], usage: CompletionUsage | UnsetType | None = not_yet) -> bytes:
        return sse_data(_encode(completion.chunk(choices, usage)))

    for choice in completion.opening():
        yield event([choice])
    try:
        async for piece in choices.pieces():
            for choice in completion.more(piece):
                yield event([choice])
    except BanyanError as error:
        yield sse_data(_encode(ErrorResponse(body_of(error))))
        return
    if include_usage:
        yield event([], completion.usage())
    yield sse_data(b"[DONE]")
