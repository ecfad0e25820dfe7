"""Every request's first station: whose key it is, whether the route may be asked for, and the end of what it opened.

Pure ASGI. Decides on the scope's path and headers before anything is accepted: a refusal is a real HTTP status, for
WebSockets too. Keeps what is open by identity, so that a key that is revoked takes its streams along.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import BanyanError, RequestError
from backend.server.access import required_scope
from backend.server.callers import Callers, names_this_machine
from backend.server.identity import STATE_KEY, Identity
from backend.server.json_http import refusal
from backend.server.tickets import SUBPROTOCOL, TicketOffice
from backend.tenants.directory import Directory
from backend.tenants.limiter import Limiter

REVOKED = 4401
_CLOSE_SECONDS = 1.0
_WORDS = "the key was revoked or has expired"


class OpenConnections:
    """The tasks that serve requests, by who asked."""

    def __init__(self) -> None:
        self._open: dict[Identity, set[asyncio.Task[Any]]] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    def add(self, identity: Identity, task: "asyncio.Task[Any]") -> None:
        """``task`` serves a request of ``identity``."""
        self._open.setdefault(identity, set()).add(task)

    def remove(self, identity: Identity, task: "asyncio.Task[Any]") -> bool:
        """It is over; whether ``end`` ended it."""
        tasks = self._open[identity]
        tasks.discard(task)
        if not tasks:
            del self._open[identity]
        ended = task in self._ended
        self._ended.discard(task)
        return ended

    def is_ended(self, task: "asyncio.Task[Any]") -> bool:
        """Whether ``end`` ended it."""
        return task in self._ended

    def end(self, still: Callable[[Identity], bool]) -> None:
        """Cancel the tasks of everybody who is not ``still`` known; not the one that calls, so that whoever ends its
        own key hears that it is done."""
        here = asyncio.current_task()
        for identity in [identity for identity in self._open if not still(identity)]:
            for task in self._open[identity] - self._ended - {here}:
                self._ended.add(task)
                task.cancel()


class Authentication:
    """Wraps the app. ``headers``: what every answer to a tenant carries; ``static``: paths that are open."""

    def __init__(
        self,
        app: ASGIApp,
        directory: Directory,
        limiter: Limiter,
        tickets: TicketOffice,
        connections: OpenConnections,
        *,
        clock: Callable[[], float],
        headers: Callable[[str], Mapping[str, str]],
        callers: Callers,
        refused: Callable[[int], None] = lambda status: None,
        static: Collection[str] = (),
    ) -> None:
        self._app = app
        self._directory = directory
        self._limiter = limiter
        self._tickets = tickets
        self._connections = connections
        self._clock = clock
        self._headers = headers
        self._callers = callers
        self._refused = refused
        self._static = static

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            identity = self._identify(scope)
        except BanyanError as error:
            await self._refuse(error, scope, receive, send)
            return
        if identity is None:  # open to everybody
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})[STATE_KEY] = identity
        if scope["type"] == "http":
            await self._serve(identity, scope, receive, send)
            return
        try:
            self._limiter.open_socket(identity.tenant, identity.key_id)
        except BanyanError as error:
            await self._refuse(error, scope, receive, send)
            return
        try:
            await self._serve(identity, scope, receive, send)
        finally:
            self._limiter.close_socket(identity.tenant, identity.key_id)

    def _identify(self, scope: Scope) -> Identity | None:
        """None: nobody needs to be known. Raises ``BanyanError``: 401 or 403."""
        self._callers.check(scope, has_keys=not self._directory.is_open)
        if self._directory.is_open:
            if not names_this_machine(scope):
                _refuse_administration(scope)
            return self._directory.authenticate(None)
        # who is nobody learns nothing about what there is
        known = self._known(scope)
        try:
            wanted = required_scope(scope, self._static)
        except BanyanError:
            if known is None:
                raise _unauthorized() from None
            raise
        if wanted is None:
            return None
        if known is None:
            raise _unauthorized()
        known.require(wanted)
        return known

    def _known(self, scope: Scope) -> Identity | None:
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        if authorization:
            kind, _, secret = authorization[0].decode("latin-1").partition(" ")
            good = len(authorization) == 1 and kind.lower() == "bearer"
            return self._directory.authenticate(secret.strip()) if good else None
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(SUBPROTOCOL):
                found = self._tickets.redeem(protocol[len(SUBPROTOCOL) :], self._clock())
                return found if found is not None and self._directory.still(found) else None
        return None

    async def _refuse(self, error: BanyanError, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused(error.status)
        response = refusal(scope, error)
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    async def _serve(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                added = self._headers(identity.tenant).items()
                pairs = [(name.encode(), value.encode()) for name, value in added]
                message["headers"] = [*message.get("headers", ()), *pairs]
                begun = True
            await send(message)

        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served by a task")
        self._connections.add(identity, task)
        ended = False
        try:
            # of a socket every message would go through one more call
            await self._app(scope, receive, noticed if scope["type"] == "http" else send)
        except asyncio.CancelledError:
            if not self._connections.is_ended(task):
                raise
            task.uncancel()
        finally:
            ended = self._connections.remove(identity, task)
        if ended:
            await self._end(scope, receive, send, begun=begun or scope["type"] == "websocket")

    async def _end(self, scope: Scope, receive: Receive, send: Send, *, begun: bool) -> None:
        """Say that the key opens nothing any more; a peer that does not read gets no more than a second."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if not begun:
                    await self._refuse(_unauthorized(_WORDS), scope, receive, send)
                elif scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": REVOKED, "reason": _WORDS})


def _refuse_administration(scope: Scope) -> None:
    """Names that were allowed may be everybody's way in, through a proxy: from there nobody makes tenants and prompts.
    Raises ``RequestError``."""
    path = scope["path"]
    writes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
    if path.startswith("/admin/") or (writes and (path + "/").startswith("/v1/prompts/")):
        message = "without keys, administration is for callers who name this machine: http://127.0.0.1 or localhost"
        raise RequestError(message, code="not_allowed", status=403)


def _unauthorized(message: str = "a valid key is needed: Authorization: Bearer sk-...") -> BanyanError:
    return BanyanError(message, code="invalid_api_key", status=401)
