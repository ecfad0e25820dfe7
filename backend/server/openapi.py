"""The document of ``/openapi.json``, made from the message structs. Knows routes by name; no handler.

A route that is added gets a line in ``OPERATIONS``; what it takes and gives is a struct, never written twice.
"""

from typing import Any

import msgspec

from backend.server.completion_types import ChatCompletion, ChatRequest
from backend.server.errors import ErrorResponse
from backend.server.events import ClientEvent, Response, ResponseCreate, ServerEvent
from backend.server.prompts import ListedPrompt
from backend.server.text_completion_types import CompletionRequest, TextCompletion
from backend.version import installed_version

_REFERENCE = "#/components/schemas/{name}"


class Operation(msgspec.Struct, frozen=True):
    """A route: what its body is decoded to and what it answers, None where that is not JSON of ours."""

    method: str
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    streams: bool = False  # also answers as text/event-stream


class ModelCard(msgspec.Struct):
    """One entry of ``GET /v1/models``."""

    id: str
    created: int
    max_model_len: int
    object: str = "model"
    owned_by: str = "banyan"


class ModelList(msgspec.Struct):
    """``GET /v1/models``."""

    data: list[ModelCard]
    object: str = "list"


class PromptList(msgspec.Struct):
    """``GET /v1/prompts``."""

    data: list[ListedPrompt]
    object: str = "list"


class Health(msgspec.Struct):
    """``GET /health`` and ``GET /ready``."""

    status: str


class Deleted(msgspec.Struct):
    """The answer to ``DELETE``."""

    id: str
    object: str = "response"
    deleted: bool = True


class Version(msgspec.Struct):
    """``GET /version``."""

    version: str


OPERATIONS: list[Operation] = [
    Operation("post", "/v1/responses", "Create a response", ResponseCreate, Response, streams=True),
    Operation("get", "/v1/responses/{response_id}", "A stored response", answer=Response),
    Operation("delete", "/v1/responses/{response_id}", "Forget a stored response", answer=Deleted),
    Operation("post", "/v1/chat/completions", "Chat completion", ChatRequest, ChatCompletion, streams=True),
    Operation("post", "/v1/completions", "Text completion", CompletionRequest, TextCompletion, streams=True),
    Operation("get", "/v1/models", "Models", answer=ModelList),
    Operation("get", "/v1/models/{id}", "One model", answer=ModelCard),
    Operation("get", "/v1/prompts", "Registered system prompts", answer=PromptList),
    Operation("get", "/health", "Whether the engine works", answer=Health),
    Operation("get", "/ready", "Whether new requests are taken", answer=Health),
    Operation("get", "/metrics", "Prometheus metrics"),
    Operation("get", "/version", "Version of this server", answer=Version),
]


def document(operations: list[Operation] | None = None) -> dict[str, Any]:
    """OpenAPI 3.1. ``ClientEvent`` and ``ServerEvent`` are the messages of the WebSocket at ``/v1/responses``."""
    operations = OPERATIONS if operations is None else operations
    types = [kind for op in operations for kind in (op.body, op.answer) if kind is not None]
    wanted: list[Any] = [*types, ErrorResponse, ClientEvent, ServerEvent]
    references, components = msgspec.json.schema_components(wanted, ref_template=_REFERENCE)
    by_type = dict(zip(map(id, wanted), references, strict=True))
    components["ResponseCreate"]["required"] = []  # over HTTP the path says what it is
    components["ClientEvent"], components["ServerEvent"] = references[-2:]
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        paths.setdefault(op.path, {})[op.method] = _operation(op, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Banyan", "version": installed_version()},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(op: Operation, by_type: dict[int, Any]) -> dict[str, Any]:
    error = {"description": "Refused", "content": _json(by_type[id(ErrorResponse)])}
    done: dict[str, Any] = {"description": "Done"}
    if op.answer is not None:
        done["content"] = _json(by_type[id(op.answer)])
    if op.streams:
        done["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    described: dict[str, Any] = {
        "summary": op.summary,
        "operationId": _identifier(op),
        "responses": {"200": done, "4XX": error, "5XX": error},
    }
    if names := _parameters(op.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if op.body is not None:
        described["requestBody"] = {"required": True, "content": _json(by_type[id(op.body)])}
    return described


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _identifier(op: Operation) -> str:
    words = op.path.replace("{", "").replace("}", "").replace("_", "/").strip("/").split("/")
    return op.method + "".join(word.capitalize() for word in words)


def _parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]
