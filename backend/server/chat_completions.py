"""``POST /v1/chat/completions``, JSON and server-sent events. Knows that protocol; the answer is a ``Reply``."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from backend.engine.messages import Output, Started
from backend.errors import BanyanError, EngineError, RequestError
from backend.server.asked import check_metadata, unsupported
from backend.server.completion_types import (
    Answer,
    ChatCompletion,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    CompletionUsage,
    Delta,
    PromptTokensDetails,
)
from backend.server.errors import ErrorResponse, body_of, decoding, failure
from backend.server.json_http import json_response, read_body
from backend.server.limits import Limits
from backend.server.messages import check_count, message
from backend.server.reply import Reply
from backend.server.sampling import Asked
from backend.server.service import ChatService, MeasuredGeneration
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
    completion = await _begin(service, asked, began, large=len(body) > _INLINE_BYTES)
    if not asked.stream:
        return whole(completion.whole, completion.release)
    try:
        await completion.first()  # so that what fails before the first token still gets a status of its own
    except BaseException:
        completion.release()
        raise
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return event_stream(completion.chunks(include_usage), completion.release)


async def _begin(service: ChatService, asked: ChatRequest, began: float, *, large: bool) -> "Completion":
    model = service.model
    _refuse_unsupported(asked)
    check_metadata(asked.metadata, service.limits)
    options = model.check_options(_sampling(asked))
    encode = partial(model.encoder.begin, _messages(asked, service.limits))
    prompt = await asyncio.to_thread(encode) if large else encode()
    submit = model.submit(service.engine.next_request_id(), prompt, options, param="messages")
    reply = model.reply(len(prompt.ids), options, began)
    return Completion(service, service.generate(submit, began), reply)


class Completion:
    """One completion on its way."""

    def __init__(self, service: ChatService, generation: MeasuredGeneration, reply: Reply) -> None:
        self._service = service
        self._generation = generation
        self._events = aiter(generation)
        self._reply = reply
        self._id = f"chatcmpl-{service.new_id()}"
        self._created = int(time.time())
        self._held: list[Started | Output] = []

    def release(self) -> None:
        """Free everything at once; idempotent."""
        self._generation.cancel()

    async def first(self) -> None:
        """Wait until the engine has begun. Raises ``BanyanError`` when it fails or refuses before.

        Nothing has been computed when the time of queueing is over before that. There is no answer that could be called
        short then: it is a refusal like the one of a request whose wait is foreseen.
        """
        event = await anext(self._events, None)
        if event is None:
            raise EngineError("the engine ended the request without a word")
        _check(event)
        if isinstance(event, Output) and event.finish == "deadline":
            raise BanyanError(event.message, code="server_overloaded", status=503)
        self._held.append(event)

    async def whole(self) -> Response:
        """The answer at once."""
        await self.first()
        async for _ in self._pieces():
            pass
        choice = Choice(Answer(self._reply.text), self._finish_reason())
        return json_response(
            ChatCompletion(
                id=self._id,
                created=self._created,
                model=self._service.model.name,
                choices=[choice],
                usage=self._usage(),
            )
        )

    async def chunks(self, include_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A failure within is an ``error`` object, as OpenAI's clients expect."""
        usage = None if include_usage else msgspec.UNSET  # OpenAI: null in every chunk but the last, when asked for
        chunk = partial(Chunk, id=self._id, created=self._created, model=self._service.model.name)
        yield sse_data(_encode(chunk(choices=[ChunkChoice(Delta("assistant", ""))], usage=usage)))
        try:
            async for text in self._pieces():
                if text:
                    yield sse_data(_encode(chunk(choices=[ChunkChoice(Delta(content=text))], usage=usage)))
        except BanyanError as error:
            yield sse_data(_encode(ErrorResponse(body_of(error))))
            return
        yield sse_data(_encode(chunk(choices=[ChunkChoice(Delta(), self._finish_reason())], usage=usage)))
        if include_usage:
            yield sse_data(_encode(chunk(choices=[], usage=self._usage())))
        yield sse_data(b"[DONE]")

    async def _pieces(self) -> AsyncIterator[str]:
        async for event in self._all_events():
            _check(event)
            if isinstance(event, Started):
                self._reply.started(event)
                continue
            yield self._reply.output(event, self._service.clock())
            if self._reply.finish:
                self.release()
                return
        raise EngineError("the engine ended the request without a word")

    async def _all_events(self) -> AsyncIterator[Started | Output]:
        for event in self._held:
            yield event
        async for event in self._events:
            yield event

    def _finish_reason(self) -> str:
        return "stop" if self._reply.finish == "stop" else "length"

    def _usage(self) -> CompletionUsage:
        usage = self._reply.usage()
        return CompletionUsage(
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            prompt_tokens_details=PromptTokensDetails(self._reply.cached),
            x_timing=usage.x_timing,
        )


def _check(event: Started | Output) -> None:
    if isinstance(event, Output) and event.finish == "error":
        raise failure(event)


def _messages(asked: ChatRequest, limits: Limits) -> list[Message]:
    check_count(len(asked.messages), "messages", limits)
    for i, item in enumerate(asked.messages):
        if item.tool_calls:
            raise unsupported(f"messages[{i}].tool_calls")
    return [message(m.role, m.content, f"messages[{i}]", limits) for i, m in enumerate(asked.messages)]


def _sampling(asked: ChatRequest) -> Asked:
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise RequestError("give either max_tokens or max_completion_tokens", param="max_tokens")
    newer = asked.max_completion_tokens is not None
    return Asked(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        seed=asked.seed,
        max_tokens=asked.max_completion_tokens if newer else asked.max_tokens,
        stop=asked.stop,
        ignore_eos=asked.ignore_eos,
        max_tokens_name="max_completion_tokens" if newer else "max_tokens",
    )


def _refuse_unsupported(asked: ChatRequest) -> None:
    """Raises ``RequestError`` for the first field that asks for what this server cannot do."""
    wanted = {
        "n": asked.n not in (None, 1),
        "tools": bool(asked.tools),
        "tool_choice": asked.tool_choice not in (None, "auto", "none"),
        "functions": bool(asked.functions),
        "function_call": asked.function_call not in (None, "auto", "none"),
        "logprobs": bool(asked.logprobs),
        "top_logprobs": bool(asked.top_logprobs),
        "response_format": bool(asked.response_format and asked.response_format.type != "text"),
        "presence_penalty": bool(asked.presence_penalty),
        "frequency_penalty": bool(asked.frequency_penalty),
        "repetition_penalty": asked.repetition_penalty not in (None, 1.0),
        "min_p": bool(asked.min_p),
        "logit_bias": bool(asked.logit_bias),
        "modalities": asked.modalities not in (None, ["text"]),
        "audio": asked.audio is not None,
        "reasoning_effort": asked.reasoning_effort not in (None, "none"),
        "verbosity": asked.verbosity not in (None, "medium"),
        "web_search_options": asked.web_search_options is not None,
    }
    for param, is_wanted in wanted.items():
        if is_wanted:
            raise unsupported(param)
