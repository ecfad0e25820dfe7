"""Every message of the WebSocket, as types: what a client may send and what it gets back.

Knows names, types and the wire form. Knows no state: whether an event is allowed now is the session's business.
Fields that are not listed are ignored; a listed field of another type is refused with its path.
"""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from backend.server.live_events import Batch, Stats, Topic, Tree

StreamId: TypeAlias = str | UnsetType

# ---- from the client -----------------------------------------------------------------------------


class Envelope(msgspec.Struct, frozen=True):
    """What is read first: enough to choose the type and to address an error."""

    type: str | UnsetType = UNSET
    stream_id: str | UnsetType | None = UNSET


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message: ``input_text``, ``output_text`` or ``text``."""

    type: str
    text: str | UnsetType = UNSET


class InputItem(msgspec.Struct, frozen=True):
    """A message of the conversation."""

    type: str = "message"
    role: str | UnsetType = UNSET
    content: str | list[ContentPart] | None = None


class PromptReference(msgspec.Struct, frozen=True):
    """A registered system prompt."""

    id: str
    version: str | None = None
    variables: dict[str, Any] | None = None


class TextFormat(msgspec.Struct, frozen=True):
    """Only ``text`` is served."""

    type: str = "text"


class TextOptions(msgspec.Struct, frozen=True):
    """``text`` of a request."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """``reasoning`` of a request."""

    effort: str | None = None


class ResponseCreate(msgspec.Struct, frozen=True, kw_only=True, tag="response.create", tag_field="type"):
    """``response.create``, and the body of ``POST /v1/responses``.

    Fields that would change the answer and are not served are here to be refused."""

    stream_id: str | None = None
    model: str | None = None
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    prompt: PromptReference | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    metadata: dict[str, str] | None = None
    generate: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    background: bool | None = None
    conversation: Any = None
    truncation: str | None = None
    store: bool | None = None
    stream: bool | None = None


class ResponseCancel(msgspec.Struct, frozen=True, tag="response.cancel", tag_field="type"):
    """``response.cancel``: one response, by its id or by its lane."""

    response_id: str | None = None
    stream_id: str | None = None


class Resume(msgspec.Struct, frozen=True, tag="x.resume", tag_field="type"):
    """``x.resume``: the events of a response after the last ``sequence_number`` seen (-1: none), then what follows."""

    response_id: str
    after: int = -1


class Subscribe(msgspec.Struct, frozen=True, tag="x.subscribe", tag_field="type"):
    """``x.subscribe``: these topics, at most ``max_hz`` events of each a second; replaces an earlier one of a topic."""

    topics: list[Topic]
    max_hz: float = 2.0


class Unsubscribe(msgspec.Struct, frozen=True, tag="x.unsubscribe", tag_field="type"):
    """``x.unsubscribe``: no more of these topics; of all when none is named."""

    topics: list[Topic] = []


class Ping(msgspec.Struct, frozen=True, tag="x.ping", tag_field="type"):
    """``x.ping``; ``t`` comes back as it was."""

    t: float | str | None = None
    stream_id: str | None = None


ClientEvent: TypeAlias = ResponseCreate | ResponseCancel | Resume | Subscribe | Unsubscribe | Ping

CLIENT_EVENTS: dict[str, type[ClientEvent]] = {
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
    "x.resume": Resume,
    "x.subscribe": Subscribe,
    "x.unsubscribe": Unsubscribe,
    "x.ping": Ping,
}

# ---- the response object -------------------------------------------------------------------------

Status: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed"]


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    """The text of an answer."""

    text: str = ""
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(msgspec.Struct, tag="message", tag_field="type"):
    """The one output item of an answer."""

    id: str
    status: Status
    content: list[OutputText]
    role: str = "assistant"


class InputTokensDetails(msgspec.Struct):
    """``cached_tokens``: prompt tokens that were not computed for this request."""

    cached_tokens: int


class OutputTokensDetails(msgspec.Struct):
    """No model served here thinks apart from its text."""

    reasoning_tokens: int = 0


class Timing(msgspec.Struct):
    """Milliseconds as the server saw them; None where nothing was measured. ``tokens_per_s``: of decoding."""

    queue_ms: float | None
    prefill_ms: float | None
    ttft_ms: float | None
    decode_ms: float | None
    tokens_per_s: float | None


class Usage(msgspec.Struct):
    """Tokens and times of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    x_timing: Timing


class Incomplete(msgspec.Struct):
    """Why an answer is not whole: ``max_output_tokens``, ``cancelled`` or ``deadline``."""

    reason: str


class ResponseError(msgspec.Struct):
    """Why a response failed. ``x_retry_after_s``: seconds until trying again makes sense, where that is known."""

    code: str
    message: str
    x_retry_after_s: float | UnsetType = UNSET


class PlainText(msgspec.Struct, tag="text", tag_field="type"):
    """The only format served."""


class TextConfig(msgspec.Struct):
    """``text`` of a response."""

    format: PlainText = msgspec.field(default_factory=PlainText)


class Response(msgspec.Struct, kw_only=True):
    """OpenAI's response object."""

    id: str
    created_at: int
    status: Status
    model: str
    object: str = "response"
    output: list[OutputMessage] = []
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = False
    previous_response_id: str | None = None
    store: bool = False
    temperature: float
    text: TextConfig = msgspec.field(default_factory=TextConfig)
    tool_choice: str = "none"
    tools: list[Any] = []
    top_p: float
    truncation: str = "disabled"
    usage: Usage | None = None


# ---- to the client ------------------------------------------------------------------------------


class _OfResponse(msgspec.Struct, kw_only=True, tag_field="type"):
    """``sequence_number``: per response, from 0, without gaps."""

    sequence_number: int
    stream_id: StreamId = UNSET


class Queued(_OfResponse, tag="response.queued"):
    """The engine is busy. ``x_position``: requests before it when it came, itself counted."""

    response: Response
    x_position: int


class Created(_OfResponse, tag="response.created"):
    """The request was accepted."""

    response: Response


class CachedBy(msgspec.Struct):
    """Cached tokens from the front: of the system prompt, of this conversation before, and the rest."""

    system: int
    history: int
    shared: int


class Cache(_OfResponse, tag="x.cache"):
    """Where the prompt's tokens came from. ``est_ttft_saved_ms`` is None until this server has measured its prefill."""

    prompt_tokens: int
    cached_tokens: int
    by: CachedBy
    est_ttft_saved_ms: float | None


class InProgress(_OfResponse, tag="response.in_progress"):
    """The engine runs the request."""

    response: Response


class ItemAdded(_OfResponse, tag="response.output_item.added"):
    """The message begins."""

    output_index: int
    item: OutputMessage


class PartAdded(_OfResponse, tag="response.content_part.added"):
    """Its text begins."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class TextDelta(_OfResponse, tag="response.output_text.delta"):
    """More text; whole characters."""

    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[Any] = []


class TextDone(_OfResponse, tag="response.output_text.done"):
    """The whole text."""

    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[Any] = []


class PartDone(_OfResponse, tag="response.content_part.done"):
    """The part is whole."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class ItemDone(_OfResponse, tag="response.output_item.done"):
    """The message is whole."""

    output_index: int
    item: OutputMessage


class Completed(_OfResponse, tag="response.completed"):
    """The model ended its turn, or a stop string did."""

    response: Response


class Unfinished(_OfResponse, tag="response.incomplete"):
    """The answer was cut short; ``incomplete_details`` says by what."""

    response: Response


class Failed(_OfResponse, tag="response.failed"):
    """The engine failed this response."""

    response: Response


class ErrorBody(msgspec.Struct):
    """The four fields of OpenAI's errors."""

    type: str
    code: str
    message: str
    param: str | None


class Error(msgspec.Struct, tag="error", tag_field="type"):
    """A request was refused. The socket stays open."""

    status: int
    error: ErrorBody
    stream_id: StreamId = UNSET


class SessionLimits(msgspec.Struct):
    """What a client should keep to."""

    message_bytes: int
    lanes: int
    max_context_tokens: int
    idle_seconds: float
    age_seconds: float
    resume_seconds: float


class SessionOpened(msgspec.Struct, tag="x.session", tag_field="type"):
    """Sent once, with our subprotocol."""

    tenant: str
    model: str
    limits: SessionLimits


class Pong(msgspec.Struct, tag="x.pong", tag_field="type"):
    """The answer to ``x.ping``."""

    t: float | str | None
    stream_id: StreamId = UNSET


ServerEvent: TypeAlias = (
    Queued
    | Created
    | Cache
    | InProgress
    | ItemAdded
    | PartAdded
    | TextDelta
    | TextDone
    | PartDone
    | ItemDone
    | Completed
    | Unfinished
    | Failed
    | Error
    | SessionOpened
    | Pong
    | Stats
    | Tree
    | Batch
)
