"""All routes of the server. Knows which handler answers which path, and how errors leave."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute

from backend.errors import BanyanError, RequestError
from backend.server.admin import admin_routes
from backend.server.auth import Authentication
from backend.server.callers import OURSELVES, Callers
from backend.server.chat_completions import chat_completions
from backend.server.completions import completions
from backend.server.conductor import Conductor
from backend.server.conversations import ConversationStore, MemoryStore
from backend.server.errors import unexpected
from backend.server.identity import identity_of
from backend.server.json_http import json_response, refusal
from backend.server.live import LiveFeed
from backend.server.openapi import Health, ModelCard, ModelList, PromptList, Version, document
from backend.server.prompt_routes import own_tenant, visible_routes
from backend.server.prompt_routes import routes as prompt_routes
from backend.server.responses_http import create_response, delete_response, get_response
from backend.server.service import ChatService
from backend.server.socket import ResponsesSocket
from backend.server.sockets import OpenSockets
from backend.server.static import BUILT_UI, open_paths, web_ui
from backend.server.stored_turns import DatabaseStore
from backend.server.tickets import TICKET_SECONDS
from backend.server.tracing import NoTracing, Refusals
from backend.server.usage_routes import own_usage
from backend.version import installed_version

_log = logging.getLogger("banyan.server")


def create_app(
    service: ChatService, ui: Path = BUILT_UI, store: ConversationStore | None = None, callers: Callers = OURSELVES
) -> Starlette:
    """The ASGI app around ``service``; ``ui``: folder of the built web UI; ``store``: where conversations are kept, by
    default the tenants' database, or memory where there is none; ``callers``: hosts and origins that are allowed."""
    tenancy = service.tenancy
    if store is None:
        store = MemoryStore() if tenancy.database is None else DatabaseStore(tenancy.conversations)
    app = Starlette(
        middleware=[
            *_told(service),
            *_cross_origin(callers),
            Middleware(
                Authentication,
                tenancy.directory,
                tenancy.limiter,
                tenancy.tickets,
                tenancy.connections,
                clock=tenancy.clock,
                headers=tenancy.gate.headers,
                callers=callers,
                refused=tenancy.refused,
                static=open_paths(ui),
            ),
        ],
        routes=[
            Mount(
                "/v1",
                routes=[
                    WebSocketRoute("/responses", ResponsesSocket()),
                    Route("/responses", create_response, methods=["POST"]),
                    Route("/responses/{response_id}", get_response, methods=["GET"]),
                    Route("/responses/{response_id}", delete_response, methods=["DELETE"]),
                    Route("/chat/completions", chat_completions, methods=["POST"]),
                    Route("/completions", completions, methods=["POST"]),
                    Route("/models", _models),
                    Route("/models/{id:path}", _model),
                    Route("/prompts", _prompts, methods=["GET"]),
                    *visible_routes("/prompts"),
                    *prompt_routes("/prompts", own_tenant),
                    Route("/usage", own_usage, methods=["GET"]),
                    Route("/tickets", _ticket, methods=["POST"]),
                ],
            ),
            Mount("/admin/v1", routes=admin_routes()),
            Route("/health", _health),
            Route("/ready", _ready),
            Route("/metrics", _metrics),
            Route("/version", _version),
            Route("/openapi.json", _openapi),
            Mount("/", app=web_ui(ui)),
        ],
        exception_handlers={
            BanyanError: _on_error,
            HTTPException: _on_http_exception,
            Exception: _on_bug,
        },
        lifespan=_lifespan,
    )
    conductor = Conductor(service, store)
    conductor.responses.refused = service.refused
    app.state.service = service
    app.state.conductor = conductor
    app.state.feed = LiveFeed(service, conductor)
    app.state.sockets = OpenSockets()
    return app


def _told(service: ChatService) -> list[Middleware]:
    """What tells of requests, where somebody wants to hear."""
    if isinstance(service.tracing, NoTracing):
        return []
    return [Middleware(service.tracing.wrapped), Middleware(Refusals, service.tracing, service.clock)]


def _cross_origin(callers: Callers) -> list[Middleware]:
    """What browsers ask for before they let pages of other origins read our answers."""
    if not callers.origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=sorted(callers.origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    ]


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Time passes for responses and sockets while the app runs."""
    state = app.state
    ticking = [
        asyncio.create_task(state.conductor.tick_forever()),
        asyncio.create_task(state.sockets.tick_forever(state.service.clock)),
    ]
    yield
    for task in ticking:
        task.cancel()
    await asyncio.gather(*ticking, return_exceptions=True)


def _card(service: ChatService) -> ModelCard:
    return ModelCard(service.model.name, service.created, service.model.max_context)


async def _models(request: Request) -> Response:
    return json_response(ModelList([_card(request.app.state.service)]))


async def _model(request: Request) -> Response:
    service: ChatService = request.app.state.service
    service.model.check_name(request.path_params["id"])
    return json_response(_card(service))


async def _prompts(request: Request) -> Response:
    service: ChatService = request.app.state.service
    return json_response(PromptList(service.prompts.listed(identity_of(request.scope).tenant)))


async def _ticket(request: Request) -> Response:
    service: ChatService = request.app.state.service
    ticket = service.tenancy.tickets.issue(identity_of(request.scope), service.tenancy.clock())
    return json_response({"ticket": ticket, "expires_in": int(TICKET_SECONDS)}, 201, {"cache-control": "no-store"})


async def _health(request: Request) -> Response:
    healthy = request.app.state.service.healthy()
    return json_response(Health("ok" if healthy else "engine_unavailable"), 200 if healthy else 503)


async def _ready(request: Request) -> Response:
    if request.app.state.conductor.responses.draining:
        return json_response(Health("draining"), 503)
    healthy = request.app.state.service.healthy()
    return json_response(Health("ok" if healthy else "engine_unavailable"), 200 if healthy else 503)


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def _version(request: Request) -> Response:
    return json_response(Version(installed_version()))


async def _openapi(request: Request) -> Response:
    return json_response(document())


async def _on_error(request: Request, error: Exception) -> Response:
    return refusal(request.scope, cast(BanyanError, error))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    path = request.scope["path"][:200]
    refused = RequestError(f"{request.method} {path}: {error.detail}", code=code, status=error.status_code)
    return refusal(request.scope, refused)


async def _on_bug(request: Request, error: Exception) -> Response:
    _log.error("a request broke", exc_info=error)
    return refusal(request.scope, unexpected())
