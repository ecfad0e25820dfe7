"""Which route wants which scope. What is not listed is refused. Reads the path of the ASGI scope, nothing else."""

from collections.abc import Collection
from typing import Any, NamedTuple

from backend.errors import RequestError

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})
_READS = ("GET", "HEAD")


class Rule(NamedTuple):
    """``path``: exact, or with everything below it when it ends with a slash."""

    methods: tuple[str, ...]
    path: str
    scope: str


RULES = (
    Rule(("WEBSOCKET", "POST"), "/v1/responses", "chat"),
    Rule((*_READS, "POST", "DELETE"), "/v1/responses/", "chat"),
    Rule(("POST",), "/v1/chat/completions", "chat"),
    Rule(("POST",), "/v1/completions", "chat"),
    Rule(("POST",), "/v1/tickets", "chat"),
    Rule(_READS, "/v1/models", "models"),
    Rule(_READS, "/v1/models/", "models"),
    Rule(_READS, "/openapi.json", "models"),
    Rule(_READS, "/v1/prompts", "prompts:read"),
    Rule(_READS, "/v1/prompts/", "prompts:read"),
    Rule(("POST",), "/v1/prompts", "prompts:write"),
    Rule(("POST", "DELETE"), "/v1/prompts/", "prompts:write"),
    Rule(_READS, "/v1/usage", "usage:read"),
    Rule(_READS, "/metrics", "admin"),
    Rule((*_READS, "POST", "PATCH", "DELETE"), "/admin/v1/", "admin"),
)


def required_scope(scope: Any, static: Collection[str] = ()) -> str | None:
    """The scope that a request needs, None when it is open to everybody: ``static`` are paths of files of the UI.

    Raises ``RequestError`` (403) for what no rule allows.
    """
    path = scope["path"]
    method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
    if method in _READS and (path in OPEN_PATHS or path in static):
        return None
    for rule in RULES:
        below = rule.path.endswith("/") and path.startswith(rule.path)
        if method in rule.methods and (below or path == rule.path):
            return rule.scope
    raise RequestError(f"{method} {path[:200]} is not allowed with a key", code="not_allowed", status=403)
