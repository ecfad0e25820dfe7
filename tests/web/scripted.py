"""A server that says exactly what a test wants, in place of the real one: for what a well-behaved server does not do.

Knows the wire form of the events. Does not know the page.
"""

import json
from typing import Any

from playwright.sync_api import Page, WebSocketRoute


class ScriptedServer:
    """Takes over the page's WebSockets: ``requests`` are what it sent, ``say`` answers on the last one's lane.

    ``sockets`` counts those that were opened; what is said goes to the newest.
    """

    def __init__(self, page: Page) -> None:
        self.requests: list[dict[str, Any]] = []
        self.sockets = 0
        self._socket: WebSocketRoute | None = None
        page.route_web_socket("**/v1/responses", self._opened)

    def say(self, kind: str, **fields: Any) -> None:
        """Sends one event."""
        assert self._socket is not None, "the page has not connected"
        lanes = [request["stream_id"] for request in self.requests if "stream_id" in request]
        lane = {"stream_id": lanes[-1]} if lanes else {}
        self._socket.send(json.dumps({"type": kind, **lane, **fields}))

    def cut(self, code: int = 3001) -> None:
        """Breaks the connection. The default is no code of the server's: the page takes it for an accident."""
        assert self._socket is not None, "the page has not connected"
        self._socket.close(code=code)

    def last(self, kind: str = "response.create") -> dict[str, Any]:
        """The newest request of a kind."""
        return [request for request in self.requests if request["type"] == kind][-1]

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
        self.sockets += 1
        socket.on_message(lambda message: self.requests.append(json.loads(message)))
        socket.send(
            json.dumps(
                {"type": "x.session", "tenant": "local", "model": "scripted", "limits": {"max_context_tokens": 4096}}
            )
        )


class Cable:
    """Lies between the page and the real server, and can be cut: both ends then see an accident."""

    def __init__(self, page: Page) -> None:
        self.plugged = 0
        self._ends: tuple[WebSocketRoute, WebSocketRoute] | None = None
        page.route_web_socket("**/v1/responses", self._plug)

    def cut(self) -> None:
        """Breaks the connection there is."""
        assert self._ends is not None, "the page has not connected"
        for end in self._ends:
            end.close(code=3001)

    def _plug(self, page_end: WebSocketRoute) -> None:
        self._ends = (page_end, page_end.connect_to_server())
        self.plugged += 1
