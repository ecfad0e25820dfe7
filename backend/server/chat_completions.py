"""``POST /v1/chat/completions`` in its own words: what is asked, what is answered. ``completing`` does the rest."""

import time
from collections.abc import Iterator
from typing import Any

from msgspec import UnsetType

from backend.errors import RequestError
from backend.server.asked import check_metadata, unsupported
from backend.server.choices import Choices, Piece
from backend.server.completing import Question, completion_route
from backend.server.completion_types import (
    Answer,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChoiceLogprobs,
    Chunk,
    ChunkChoice,
    CompletionUsage,
    Delta,
)
from backend.server.identity import Identity
from backend.server.limits import Limits
from backend.server.logprobs import ShownToken
from backend.server.messages import check_count, message, with_system
from backend.server.sampling import Asked
from backend.server.service import ChatService
from backend.text.template import Message


def _read(service: ChatService, identity: Identity, asked: ChatRequest) -> Question:
    model = service.model
    _refuse_unsupported(asked)
    check_metadata(asked.metadata, service.limits)
    options = model.check_options(_sampling(asked))
    messages = _messages(asked, service.limits)
    if (imposed := model.prompts.imposed(identity.tenant, messages)) is not None:
        messages = with_system(imposed, messages)
    return Question([model.encoder.begin(messages)], options, "messages", "chat")


class _ChatCompletion:
    """One completion on its way."""

    def __init__(self, service: ChatService, asked: ChatRequest, question: Question, choices: Choices) -> None:
        self._model = service.model
        self._choices = choices
        self._logprobs = bool(asked.logprobs)
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{service.new_id()}",
            "created": int(time.time()),
            "model": service.model.name,
        }

    def whole(self) -> ChatCompletion:
        """The answer at once."""
        choices = [
            Choice(Answer(reply.text), self._choices.finish_reason(index), index, self._content(reply.logprobs))
            for index, reply in enumerate(self._choices.replies)
        ]
        return ChatCompletion(**self._head, choices=choices, usage=self.usage())

    def opening(self) -> Iterator[ChunkChoice]:
        """Each answer begins with its role."""
        for index in range(len(self._choices.replies)):
            yield ChunkChoice(Delta("assistant", ""), index=index)

    def more(self, piece: Piece) -> Iterator[ChunkChoice]:
        """Text, then the end with nothing but its reason."""
        index, text, logprobs, ended = piece
        if text:
            yield ChunkChoice(Delta(content=text), index=index, logprobs=self._content(logprobs))
        if ended:
            yield ChunkChoice(Delta(), self._choices.finish_reason(index), index)

    def chunk(self, choices: list[ChunkChoice], usage: CompletionUsage | UnsetType | None) -> Chunk:
        """One event."""
        return Chunk(**self._head, choices=choices, usage=usage)

    def usage(self) -> CompletionUsage:
        """Of all answers."""
        return self._choices.usage()

    def _content(self, shown: list[ShownToken]) -> ChoiceLogprobs | None:
        return ChoiceLogprobs(self._model.logprobs(shown)) if self._logprobs else None


chat_completions = completion_route(ChatRequest, _read, _ChatCompletion)


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
