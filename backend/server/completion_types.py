"""The bodies of ``/v1/chat/completions``: the request, the answer and its chunks, as types. Knows no behaviour."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from backend.server.events import ContentPart, Timing
from backend.server.logprobs import TokenEntry


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the history."""

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[Any] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options`` of a request."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """``response_format`` of a request."""

    type: str = "text"


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that would change the answer and are not served are listed so that they can be refused."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    metadata: dict[str, str] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    min_p: float | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class PromptTokensDetails(msgspec.Struct):
    """``cached_tokens``: prompt tokens that were not computed for this request."""

    cached_tokens: int


class CompletionUsage(msgspec.Struct):
    """Tokens of a completion, and its times."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    x_timing: Timing


class Answer(msgspec.Struct):
    """The assistant's message."""

    content: str
    role: str = "assistant"
    refusal: str | None = None


class ChoiceLogprobs(msgspec.Struct):
    """``logprobs`` of a choice: one entry for each token that begins in its content."""

    content: list[TokenEntry]
    refusal: None = None


class Choice(msgspec.Struct):
    """One of the answers."""

    message: Answer
    finish_reason: str
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The whole answer at once."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    object: str = "chat.completion"


class Delta(msgspec.Struct):
    """What a chunk adds."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    """``finish_reason`` is None until the last chunk."""

    delta: Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class Chunk(msgspec.Struct, kw_only=True):
    """One server-sent event. ``usage`` only in the chunk that has no choices."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    object: str = "chat.completion.chunk"
