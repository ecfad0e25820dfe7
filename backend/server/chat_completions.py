"""``POST /v1/chat/completions``, JSON and server-sent events. Knows that protocol; the answers are ``Choices``."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from backend.errors import BanyanError, RequestError
from backend.server.asked import check_metadata, unsupported
from backend.server.choices import Choices
from backend.server.completion_types import (
    Answer,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChoiceLogprobs,
    Chunk,
    ChunkChoice,
    Delta,
)
from backend.server.errors import ErrorResponse, body_of, decoding
from backend.server.identity import Identity, identity_of
from backend.server.json_http import json_response, read_body
from backend.server.limits import Limits
from backend.server.logprobs import ShownToken
from backend.server.messages import check_count, message, with_system
from backend.server.sampling import Asked
from backend.server.service import ChatService
from backend.server.sse import event_stream, sse_data, whole
from backend.text.template import Message

_INLINE_BYTES = 16_384
_decoder = msgspec.json.Decoder(ChatRequest)
_encode = msgspec.json.Encoder().encode


async def chat_completions(request: Request) -> ASGIApp:
    """The route. Raises ``BanyanError``, which the app turns into an answer."""
    service: ChatService = request.app.state.service
    began = service.clock()
    body = await read_body(request, service.limits.message_bytes)
    asked = decoding(lambda: _decoder.decode(body))
    service.model.check_name(asked.model)
    completion = await _begin(service, identity_of(request.scope), asked, began, large=len(body) > _INLINE_BYTES)
    if not asked.stream:
        return whole(completion.whole, completion.release)
    try:
        await completion.first()  # so that what fails before the first token still gets a status of its own
    except BaseException:
        completion.release()
        raise
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return event_stream(completion.chunks(include_usage), completion.release)


async def _begin(
    service: ChatService, identity: Identity, asked: ChatRequest, began: float, *, large: bool
) -> "Completion":
    model = service.model
    _refuse_unsupported(asked)
    check_metadata(asked.metadata, service.limits)
    options = model.check_options(_sampling(asked))
    messages = _messages(asked, service.limits)
    if (imposed := model.prompts.imposed(identity.tenant, messages)) is not None:
        messages = with_system(imposed, messages)
    encode = partial(model.encoder.begin, messages)
    prompt = await asyncio.to_thread(encode) if large else encode()
    answers = []
    for index in range(options.n):
        choice = options.choice(index)
        submit = model.submit(service.engine.next_request_id(), prompt, choice, param="messages", identity=identity)
        answers.append((submit, model.reply(len(prompt.ids), choice, began)))
    return Completion(service, Choices(service, answers, options.n, began), logprobs=bool(asked.logprobs))


class Completion:
    """One completion on its way."""

    def __init__(self, service: ChatService, choices: Choices, *, logprobs: bool) -> None:
        self.release = choices.release
        self.first = choices.first
        self._service = service
        self._choices = choices
        self._logprobs = logprobs
        self._id = f"chatcmpl-{service.new_id()}"
        self._created = int(time.time())

    async def whole(self) -> Response:
        """The answer at once."""
        await self.first()
        async for _ in self._choices.pieces():
            pass
        choices = [
            Choice(Answer(reply.text), self._choices.finish_reason(index), index, self._content(reply.logprobs))
            for index, reply in enumerate(self._choices.replies)
        ]
        return json_response(
            ChatCompletion(
                id=self._id,
                created=self._created,
                model=self._service.model.name,
                choices=choices,
                usage=self._choices.usage(),
            )
        )

    async def chunks(self, include_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A failure within is an ``error`` object, as OpenAI's clients expect."""
        usage = None if include_usage else msgspec.UNSET  # OpenAI: null in every chunk but the last, when asked for
        chunk = partial(Chunk, id=self._id, created=self._created, model=self._service.model.name)

        def data(choice: ChunkChoice) -> bytes:
            return sse_data(_encode(chunk(choices=[choice], usage=usage)))

        for index in range(len(self._choices.replies)):
            yield data(ChunkChoice(Delta("assistant", ""), index=index))
        try:
            async for index, text, logprobs, ended in self._choices.pieces():
                if text:
                    yield data(ChunkChoice(Delta(content=text), index=index, logprobs=self._content(logprobs)))
                if ended:
                    yield data(ChunkChoice(Delta(), self._choices.finish_reason(index), index))
        except BanyanError as error:
            yield sse_data(_encode(ErrorResponse(body_of(error))))
            return
        if include_usage:
            yield sse_data(_encode(chunk(choices=[], usage=self._choices.usage())))
        yield sse_data(b"[DONE]")

    def _content(self, shown: list[ShownToken]) -> ChoiceLogprobs | None:
        return ChoiceLogprobs(self._service.model.logprobs(shown)) if self._logprobs else None


def _messages(asked: ChatRequest, limits: Limits) -> list[Message]:
    check_count(len(asked.messages), "messages", limits)
    for i, item in enumerate(asked.messages):
        if item.tool_calls:
            raise unsupported(f"messages[{i}].tool_calls")
    return [message(m.role, m.content, f"messages[{i}]", limits) for i, m in enumerate(asked.messages)]


def _sampling(asked: ChatRequest) -> Asked:
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise RequestError("give either max_tokens or max_completion_tokens", param="max_tokens")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    newer = asked.max_completion_tokens is not None
    return Asked(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        seed=asked.seed,
        max_tokens=asked.max_completion_tokens if newer else asked.max_tokens,
        stop=asked.stop,
        ignore_eos=asked.ignore_eos,
        min_p=asked.min_p,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        n=asked.n,
        max_tokens_name="max_completion_tokens" if newer else "max_tokens",
    )


def _refuse_unsupported(asked: ChatRequest) -> None:
    """Raises ``RequestError`` for the first field that asks for what this server cannot do."""
    wanted = {
        "tools": bool(asked.tools),
        "tool_choice": asked.tool_choice not in (None, "auto", "none"),
        "functions": bool(asked.functions),
        "function_call": asked.function_call not in (None, "auto", "none"),
        "response_format": bool(asked.response_format and asked.response_format.type != "text"),
        "modalities": asked.modalities not in (None, ["text"]),
        "audio": asked.audio is not None,
        "reasoning_effort": asked.reasoning_effort not in (None, "none"),
        "verbosity": asked.verbosity not in (None, "medium"),
        "web_search_options": asked.web_search_options is not None,
    }
    for param, is_wanted in wanted.items():
        if is_wanted:
            raise unsupported(param)
