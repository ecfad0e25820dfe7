"""A server that says exactly what a test wants, in place of the real one: for what a well-behaved server does not do.

Knows the wire form of the events. Does not know the page.
"""

import json
from typing import Any

from playwright.sync_api import Page, WebSocketRoute


class ScriptedServer:
    """Takes over the page's WebSocket: ``requests`` are what it sent, ``say`` answers on the last one's lane."""

    def __init__(self, page: Page) -> None:
        self.requests: list[dict[str, Any]] = []
        self._socket: WebSocketRoute | None = None
        page.route_web_socket("**/v1/responses", self._opened)

    def say(self, kind: str, **fields: Any) -> None:
        """Sends one event."""
        assert self._socket is not None, "the page has not connected"
        lane = {"stream_id": self.requests[-1]["stream_id"]} if self.requests else {}
        self._socket.send(json.dumps({"type": kind, **lane, **fields}))

    def answer(self, *deltas: str) -> None:
        """A whole answer of these deltas."""
        self.begin()
        for delta in deltas:
            self.say("response.output_text.delta", delta=delta)
        self.finish()

    def begin(self) -> None:
        """The response is there; nothing of it yet."""
        self.say("response.created", response={"id": f"resp_{len(self.requests)}"})

    def finish(self) -> None:
        """The response is complete, without figures."""
        self.say("response.completed", response={"id": f"resp_{len(self.requests)}", "usage": None})

    def _opened(self, socket: WebSocketRoute) -> None:
        self._socket = socket
        socket.on_message(lambda message: self.requests.append(json.loads(message)))
        socket.send(json.dumps({"type": "x.session", "tenant": "local", "model": "scripted", "limits": {}}))
