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
from backend.server.completion_types import CompletionUsage
from backend.server.errors import ErrorResponse, body_of, decoding
from backend.server.identity import Identity, identity_of
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


class _Text(NamedTuple):
    """A prompt: what the engine gets, and the text that ``echo`` shows."""

    ids: "array[int]"
    echoed: str


async def _begin(
    service: ChatService, identity: Identity, asked: CompletionRequest, began: float, *, large: bool
) -> "TextCompleting":
    model = service.model
    _refuse_unsupported(asked)
    options = model.check_options(_sampling(asked))
    read = partial(_prompts, asked, model, service.limits)
    prompts = await asyncio.to_thread(read) if large else read()
    if len(prompts) * options.n > service.limits.answers:
        raise RequestError(
            f"{len(prompts)} prompts with n={options.n} are more than {service.limits.answers} answers", param="n"
        )
    if asked.echo and asked.logprobs is not None:
        scored = options.n * sum(len(prompt.ids) for prompt in prompts)
        if scored > service.limits.scored_tokens:
            raise RequestError(
                f"log-probabilities of {scored} prompt tokens; at most {service.limits.scored_tokens} in one request",
                param="logprobs",
            )
    answers = []
    for prompt in prompts:
        for index in range(options.n):
            choice = options.choice(index)
            request = service.engine.next_request_id()
            submit = model.submit(request, Prompt(prompt.ids, ()), choice, param="prompt", identity=identity)
            answers.append((submit, model.reply(len(prompt.ids), choice, began)))
    echoed = [prompt for prompt in prompts for _ in range(options.n)] if asked.echo else None
    choices = Choices(service, answers, options.n, began)
    return TextCompleting(service, choices, echoed, logprobs=asked.logprobs is not None, silent=_is_silent(asked))


class TextCompleting:
    """One completion on its way. ``echoed``: the prompts that its answers begin with, one for each; ``silent``: they
    are all that is shown."""

    def __init__(
        self, service: ChatService, choices: Choices, echoed: list[_Text] | None, *, logprobs: bool, silent: bool
    ) -> None:
        self.release = choices.release
        self.first = choices.first
        self._service = service
        self._choices = choices
        self._echoed = echoed
        self._logprobs = logprobs
        self._silent = silent
        self._completion = partial(
            TextCompletion, id=f"cmpl-{service.new_id()}", created=int(time.time()), model=service.model.name
        )

    async def whole(self) -> Response:
        """The answer at once."""
        await self.first()
        async for _ in self._choices.pieces():
            pass
        choices = [self._choice(index) for index in range(len(self._choices.replies))]
        return json_response(self._completion(choices=choices, usage=self._usage()))

    async def chunks(self, include_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A failure within is an ``error`` object, as OpenAI's clients expect."""
        usage = None if include_usage else msgspec.UNSET  # OpenAI: null in every chunk but the last, when asked for

        def data(index: int, text: str, logprobs: TextLogprobs | None, finish: str | None) -> bytes:
            choice = TextChoice(text, index, logprobs, finish)
            return sse_data(_encode(self._completion(choices=[choice], usage=usage)))

        begun: set[int] = set()
        try:
            async for index, text, logprobs, ended in self._choices.pieces():
                if self._echoed is not None and index not in begun:
                    begun.add(index)
                    yield data(index, self._echoed[index].echoed, self._of_prompt(index), None)
                if text and not self._silent:
                    yield data(index, text, self._shown(index, logprobs), None)
                if ended:
                    yield data(index, "", None, self._finish_reason(index))
        except BanyanError as error:
            yield sse_data(_encode(ErrorResponse(body_of(error))))
            return
        if include_usage:
            yield sse_data(_encode(self._completion(choices=[], usage=self._usage())))
        yield sse_data(b"[DONE]")

    def _choice(self, index: int) -> TextChoice:
        """A whole answer."""
        reply = self._choices.replies[index]
        text, logprobs = ("", None) if self._silent else (reply.text, self._shown(index, reply.logprobs))
        if self._echoed is not None:
            text = self._echoed[index].echoed + text
            logprobs = _joined(self._of_prompt(index), logprobs)
        return TextChoice(text, index, logprobs, self._finish_reason(index))

    def _finish_reason(self, index: int) -> str:
        return "length" if self._silent else self._choices.finish_reason(index)

    def _usage(self) -> CompletionUsage:
        usage = self._choices.usage()
        if not self._silent:
            return usage
        return msgspec.structs.replace(usage, completion_tokens=0, total_tokens=usage.prompt_tokens)

    def _of_prompt(self, index: int) -> TextLogprobs | None:
        if not self._logprobs or self._echoed is None:
            return None
        model = self._service.model
        logprobs = self._choices.replies[index].prompt_logprobs
        return model.text_logprobs(model.prompt_tokens(self._echoed[index].ids, logprobs), 0)

    def _shown(self, index: int, shown: list[ShownToken]) -> TextLogprobs | None:
        if not self._logprobs:
            return None
        before = 0 if self._echoed is None else len(self._echoed[index].echoed)
        return self._service.model.text_logprobs(shown, before)


def _joined(first: TextLogprobs | None, then: TextLogprobs | None) -> TextLogprobs | None:
    if first is None or then is None:
        return first or then
    return TextLogprobs(
        first.tokens + then.tokens,
        first.token_logprobs + then.token_logprobs,
        first.top_logprobs + then.top_logprobs,
        first.text_offset + then.text_offset,
    )


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
    # Nothing but an echo, to score a prompt: the engine draws a token all the same, and it is not shown.
    silent = _is_silent(asked)
    return Asked(
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        seed=asked.seed,
        max_tokens=1 if silent else _MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
        stop=asked.stop,
        ignore_eos=asked.ignore_eos,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        logprobs=asked.logprobs,
        prompt_logprobs=asked.logprobs if asked.echo else None,
        n=asked.n,
        logprobs_name="logprobs",
    )


def _is_silent(asked: CompletionRequest) -> bool:
    return bool(asked.echo) and asked.max_tokens == 0


def _refuse_unsupported(asked: CompletionRequest) -> None:
    """Raises ``RequestError`` for the first field that asks for what this server cannot do."""
    wanted = {
        "suffix": bool(asked.suffix),
        "best_of": asked.best_of not in (None, asked.n or 1),
    }
    for param, is_wanted in wanted.items():
        if is_wanted:
            raise unsupported(param)
