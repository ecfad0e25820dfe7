"""The bodies of ``/v1/completions``, OpenAI's legacy protocol, as types. Knows no behaviour."""

import msgspec
from msgspec import UNSET, UnsetType

from backend.server.completion_types import CompletionUsage, StreamOptions
from backend.server.logprobs import TextLogprobs


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that would change the answer and are not served are listed so that they can be refused."""

    model: str
    prompt: str | list[str | int | list[int]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


class TextChoice(msgspec.Struct):
    """An answer, or more of it; ``finish_reason`` is None until its end."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: str | None


class TextCompletion(msgspec.Struct, kw_only=True):
    """The whole answer, and one server-sent event too."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    object: str = "text_completion"
