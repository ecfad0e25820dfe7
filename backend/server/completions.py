"""``POST /v1/completions``: raw prompts, without a chat template. Knows that protocol; the answers are ``Choices``.

Evaluation harnesses and load tools use it: several prompts in one request, as text or as token ids.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from backend.errors import BanyanError, RequestError
from backend.server.asked import unsupported
from backend.server.chat_model import ChatModel
from backend.server.choices import Choices
from backend.server.errors import ErrorResponse, body_of, decoding
from backend.server.json_http import json_response, read_body
from backend.server.limits import Limits
from backend.server.logprobs import ShownToken, TextLogprobs
from backend.server.sampling import Asked
from backend.server.service import ChatService
from backend.server.sse import event_stream, sse_data, whole
from backend.server.text_completion_types import CompletionRequest, TextChoice, TextCompletion
from backend.text.conversation import Prompt

_INLINE_BYTES = 16_384
_MAX_TOKENS = 16  # OpenAI's default here
_decoder = msgspec.json.Decoder(CompletionRequest)
_encode = msgspec.json.Encoder().encode


async def completions(request: Request) -> ASGIApp:
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


class _Text(NamedTuple):
    """A prompt: what the engine gets, and the text that ``echo`` shows."""

    ids: "array[int]"
    echoed: str


async def _begin(service: ChatService, asked: CompletionRequest, began: float, *, large: bool) -> "TextCompleting":
    model = service.model
    _refuse_unsupported(asked)
    options = model.check_options(_sampling(asked))
    read = partial(_prompts, asked, model, service.limits)
    prompts = await asyncio.to_thread(read) if large else read()
    if len(prompts) * options.n > service.limits.answers:
        raise RequestError(
            f"{len(prompts)} prompts with n={options.n} are more than {service.limits.answers} answers", param="n"
        )
    answers = []
    for prompt in prompts:
        for index in range(options.n):
            choice = options.choice(index)
            request = service.engine.next_request_id()
            submit = model.submit(request, Prompt(prompt.ids, ()), choice, param="prompt")
            answers.append((submit, model.reply(len(prompt.ids), choice, began)))
    echoed = [prompt.echoed if asked.echo else "" for prompt in prompts for _ in range(options.n)]
    choices = Choices(service, answers, options.n, began)
    return TextCompleting(service, choices, echoed, logprobs=asked.logprobs is not None)


class TextCompleting:
    """One completion on its way. ``echoed``: what each answer begins with."""

    def __init__(self, service: ChatService, choices: Choices, echoed: list[str], *, logprobs: bool) -> None:
        self.release = choices.release
        self.first = choices.first
        self._service = service
        self._choices = choices
        self._echoed = echoed
        self._logprobs = logprobs
        self._completion = partial(
            TextCompletion, id=f"cmpl-{service.new_id()}", created=int(time.time()), model=service.model.name
        )

    async def whole(self) -> Response:
        """The answer at once."""
        await self.first()
        async for _ in self._choices.pieces():
            pass
        choices = [
            TextChoice(
                echoed + reply.text, index, self._shown(index, reply.logprobs), self._choices.finish_reason(index)
            )
            for index, (echoed, reply) in enumerate(zip(self._echoed, self._choices.replies, strict=True))
        ]
        return json_response(self._completion(choices=choices, usage=self._choices.usage()))

    async def chunks(self, include_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A failure within is an ``error`` object, as OpenAI's clients expect."""
        usage = None if include_usage else msgspec.UNSET  # OpenAI: null in every chunk but the last, when asked for

        def data(choice: TextChoice) -> bytes:
            return sse_data(_encode(self._completion(choices=[choice], usage=usage)))

        for index, echoed in enumerate(self._echoed):
            if echoed:
                yield data(TextChoice(echoed, index, None, None))
        try:
            async for index, text, logprobs, ended in self._choices.pieces():
                if text:
                    yield data(TextChoice(text, index, self._shown(index, logprobs), None))
                if ended:
                    yield data(TextChoice("", index, None, self._choices.finish_reason(index)))
        except BanyanError as error:
            yield sse_data(_encode(ErrorResponse(body_of(error))))
            return
        if include_usage:
            yield sse_data(_encode(self._completion(choices=[], usage=self._choices.usage())))
        yield sse_data(b"[DONE]")

    def _shown(self, index: int, shown: list[ShownToken]) -> TextLogprobs | None:
        return self._service.model.text_logprobs(shown, len(self._echoed[index])) if self._logprobs else None


def _prompts(asked: CompletionRequest, model: ChatModel, limits: Limits) -> list[_Text]:
    """A text, several, token ids, or several lists of them. Raises ``RequestError`` naming the item."""
    given = asked.prompt
    if isinstance(given, str):
        return [_prompt(given, "prompt", model)]
    ids = [item for item in given if isinstance(item, int)]
    if ids and len(ids) == len(given):
        return [_prompt(ids, "prompt", model)]
    if ids:
        raise RequestError("prompt is either token ids or a list of prompts", param="prompt")
    if not 0 < len(given) <= limits.prompts:
        raise RequestError(f"prompt holds 1 to {limits.prompts} prompts, not {len(given)}", param="prompt")
    return [_prompt(item, f"prompt[{i}]", model) for i, item in enumerate(given) if not isinstance(item, int)]


def _prompt(given: str | list[int], where: str, model: ChatModel) -> _Text:
    if isinstance(given, str):
        text = _Text(model.raw_ids(given), given)
    else:
        if wrong := [token for token in given if not 0 <= token < model.vocab_size]:
            raise RequestError(f"{where}: {wrong[0]} is not a token id below {model.vocab_size}", param=where)
        ids = array("I", given)
        text = _Text(ids, model.text_of(ids))
    if not text.ids:
        raise RequestError(f"{where} must hold at least one token", param=where)
    return text


def _sampling(asked: CompletionRequest) -> Asked:
    return Asked(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        seed=asked.seed,
        max_tokens=_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
        stop=asked.stop,
        ignore_eos=asked.ignore_eos,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        logprobs=asked.logprobs,
        n=asked.n,
        logprobs_name="logprobs",
    )


def _refuse_unsupported(asked: CompletionRequest) -> None:
    """Raises ``RequestError`` for the first field that asks for what this server cannot do."""
    wanted = {
        "suffix": bool(asked.suffix),
        "best_of": asked.best_of not in (None, asked.n or 1),
    }
    for param, is_wanted in wanted.items():
        if is_wanted:
            raise unsupported(param)
    if asked.echo and asked.logprobs is not None:
        raise unsupported("logprobs", "of the prompt (with echo) is not supported")
