"""The client's side of one answer in our protocol: events in, text and figures out. Sans I/O; chat and bench share it.

Knows the event names of OpenAI's Responses and our additions to them. Unknown events are ignored, as the protocol asks.
"""

from typing import Any

TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


class Answer:
    """Collects one response. ``done`` after its terminal event; ``error`` is then empty or says what went wrong."""

    def __init__(self) -> None:
        self.response_id = ""
        self.text = ""
        self.done = False
        self.error = ""
        self.stopped_by = ""
        self.usage: dict[str, Any] = {}
        self.timing: dict[str, Any] = {}

    def apply(self, event: dict[str, Any]) -> str:
        """Take one server event; returns the new text in it."""
        kind = event.get("type", "")
        if kind == "response.output_text.delta":
            self.text += event["delta"]
            return str(event["delta"])
        if kind == "error":
            detail = event.get("error") or {}
            self._end(f"{detail.get('code', 'error')}: {detail.get('message', 'no message')}")
        elif isinstance(response := event.get("response"), dict):
            self.response_id = response.get("id", self.response_id)
            if kind in TERMINAL:
                self._take_result(kind, response)
        return ""

    @property
    def prompt_tokens(self) -> int | None:
        """By usage; None where the server gave none."""
        return self.usage.get("input_tokens")

    @property
    def output_tokens(self) -> int | None:
        """By usage; None where the server gave none."""
        return self.usage.get("output_tokens")

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that were in the cache, by usage."""
        return (self.usage.get("input_tokens_details") or {}).get("cached_tokens")

    def _take_result(self, kind: str, response: dict[str, Any]) -> None:
        self.usage = response.get("usage") or {}
        self.timing = self.usage.get("x_timing") or response.get("x_timing") or {}
        self.stopped_by = (response.get("incomplete_details") or {}).get("reason", "")
        failure = response.get("error") or {}
        failed = kind == "response.failed"
        self._end(f"{failure.get('code', 'error')}: {failure.get('message', 'the response failed')}" if failed else "")

    def _end(self, error: str) -> None:
        self.error = error
        self.done = True


def create_event(text: str, **fields: Any) -> dict[str, Any]:
    """A ``response.create`` event; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {"type": "response.create", "input": text, **given}


def responses_url(url: str) -> str:
    """The WebSocket address for a server given as ``ws://host:port`` (or http, or with its path), or ``ValueError``.

    >>> responses_url("http://127.0.0.1:8000/")
    'ws://127.0.0.1:8000/v1/responses'
    """
    scheme, mark, rest = url.partition("://")
    translated = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}.get(scheme)
    if not mark or translated is None or not rest.strip("/"):
        raise ValueError(f"{url!r}: an address such as ws://127.0.0.1:8000 is expected")
    rest = rest.rstrip("/")
    return (
        f"{translated}://{rest}"
        if rest.endswith("/v1/responses")
        else f"{translated}://{rest.removesuffix('/v1')}/v1/responses"
    )
