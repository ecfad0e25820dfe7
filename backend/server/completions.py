"""``POST /v1/completions`` in its own words: raw prompts, without a chat template. ``completing`` does the rest.

Evaluation harnesses and load tools use it: several prompts in one request, as text or as token ids.
"""

import time
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import UnsetType

from backend.errors import RequestError
from backend.server.asked import unsupported
from backend.server.chat_model import ChatModel
from backend.server.choices import Choices, Piece
from backend.server.completing import Question, completion_route
from backend.server.completion_types import CompletionUsage
from backend.server.identity import Identity
from backend.server.limits import Limits
from backend.server.logprobs import ShownToken, TextLogprobs
from backend.server.sampling import Asked
from backend.server.service import ChatService
from backend.server.text_completion_types import CompletionRequest, TextChoice, TextCompletion
from backend.text.conversation import Prompt

_MAX_TOKENS = 16  # OpenAI's default here


class _Text(NamedTuple):
    """A prompt: what the engine gets, and the text that ``echo`` shows."""

    ids: "array[int]"
    echoed: str


def _read(service: ChatService, identity: Identity, asked: CompletionRequest) -> Question:
    model, limits = service.model, service.limits
    _refuse_unsupported(asked)
    options = model.check_options(_sampling(asked))
    prompts = _prompts(asked, model, limits)
    if len(prompts) * options.n > limits.answers:
        raise RequestError(
            f"{len(prompts)} prompts with n={options.n} are more than {limits.answers} answers", param="n"
        )
    if asked.echo and asked.logprobs is not None:
        scored = options.n * sum(len(prompt.ids) for prompt in prompts)
        if scored > limits.scored_tokens:
            raise RequestError(
                f"log-probabilities of {scored} prompt tokens; at most {limits.scored_tokens} in one request",
                param="logprobs",
            )
    texts = tuple(prompt.echoed for prompt in prompts)
    return Question([Prompt(prompt.ids, ()) for prompt in prompts], options, "prompt", "text_completion", texts)


class _TextCompletion:
    """One completion on its way. ``echoed``: the prompts that its answers begin with, one for each; ``silent``: they
    are all that is shown."""

    def __init__(self, service: ChatService, asked: CompletionRequest, question: Question, choices: Choices) -> None:
        n = question.options.n
        self._model = service.model
        self._choices = choices
        self._echoed: list[_Text] | None = None
        if asked.echo:
            pairs = zip(question.prompts, question.texts, strict=True)
            self._echoed = [_Text(prompt.ids, text) for prompt, text in pairs for _ in range(n)]
        self._logprobs = asked.logprobs is not None
        self._silent = _is_silent(asked)
        self._begun: set[int] = set()
        self._head: dict[str, Any] = {
            "id": f"cmpl-{service.new_id()}",
            "created": int(time.time()),
            "model": service.model.name,
        }

    def whole(self) -> TextCompletion:
        """The answer at once."""
        choices = [self._choice(index) for index in range(len(self._choices.replies))]
        return TextCompletion(**self._head, choices=choices, usage=self.usage())

    def opening(self) -> Iterator[TextChoice]:
        """Nothing."""
        return iter(())

    def more(self, piece: Piece) -> Iterator[TextChoice]:
        """The prompt where it is echoed, text, then the end with nothing but its reason."""
        index, text, logprobs, ended = piece
        if self._echoed is not None and index not in self._begun:
            self._begun.add(index)
            yield TextChoice(self._echoed[index].echoed, index, self._of_prompt(index), None)
        if text and not self._silent:
            yield TextChoice(text, index, self._shown(index, logprobs), None)
        if ended:
            yield TextChoice("", index, None, self._finish_reason(index))

    def chunk(self, choices: list[TextChoice], usage: CompletionUsage | UnsetType | None) -> TextCompletion:
        """One event."""
        return TextCompletion(**self._head, choices=choices, usage=usage)

    def usage(self) -> CompletionUsage:
        """Of all answers; those that are not shown have no tokens."""
        usage = self._choices.usage()
        if not self._silent:
            return usage
        return msgspec.structs.replace(usage, completion_tokens=0, total_tokens=usage.prompt_tokens)

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

    def _of_prompt(self, index: int) -> TextLogprobs | None:
        if not self._logprobs or self._echoed is None:
            return None
        logprobs = self._choices.replies[index].prompt_logprobs
        return self._model.text_logprobs(self._model.prompt_tokens(self._echoed[index].ids, logprobs), 0)

    def _shown(self, index: int, shown: list[ShownToken]) -> TextLogprobs | None:
        if not self._logprobs:
            return None
        before = 0 if self._echoed is None else len(self._echoed[index].echoed)
        return self._model.text_logprobs(shown, before)


completions = completion_route(CompletionRequest, _read, _TextCompletion)


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
