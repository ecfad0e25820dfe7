"""``/admin/v1``: tenants, keys, prompts, usage, audit and cache, behind the scope ``admin``. The same as the commands.

Knows stores and routes; who may come here is decided before. A new key's secret is in one answer, and nowhere else.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from backend.server.asked_json import body_as, number, tenant_asked
from backend.server.identity import identity_of
from backend.server.json_http import json_response
from backend.server.prompt_routes import routes as prompt_routes
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.server.usage_routes import usage_answer
from backend.tenants import audit
from backend.tenants.identity import DEFAULT_SCOPES
from backend.tenants.keys import Key
from backend.tenants.tenant_store import NewKey


class NewTenantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/v1/tenants``."""

    name: str
    weight: float = 1.0
    page_limit: int = 0
    page_watermark: int = 0
    limits: dict[str, Any] = {}


class NewKeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/v1/tenants/{tenant}/keys``. ``expires``: Unix seconds."""

    scopes: frozenset[str] = DEFAULT_SCOPES
    label: str = ""
    namespace: str = ""
    expires: int | None = None


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/v1/keys/{key}/rotate``: how long the old key goes on."""

    grace_seconds: int = 86_400


class KeyAnswer(msgspec.Struct, frozen=True):
    """A key without its hash."""

    id: str
    tenant: str
    last_four: str
    label: str
    scopes: list[str]
    namespace: str
    created: int
    expires: int | None
    revoked: int | None
    secret: str | msgspec.UnsetType = msgspec.UNSET


def admin_routes() -> list[BaseRoute]:
    """What is mounted at ``/admin/v1``."""
    return [
        Route("/tenants", _tenants, methods=["GET"]),
        Route("/tenants", _add_tenant, methods=["POST"]),
        Route("/tenants/{tenant}", _tenant, methods=["GET"]),
        Route("/tenants/{tenant}", _change_tenant, methods=["PATCH"]),
        Route("/tenants/{tenant}", _remove_tenant, methods=["DELETE"]),
        Route("/tenants/{tenant}/keys", _keys, methods=["GET"]),
        Route("/tenants/{tenant}/keys", _add_key, methods=["POST"]),
        Route("/tenants/{tenant}/prompts", _prompts, methods=["GET"]),
        *prompt_routes("/tenants/{tenant}/prompts", lambda request: request.path_params["tenant"]),
        Route("/keys/{key}", _revoke_key, methods=["DELETE"]),
        Route("/keys/{key}/rotate", _rotate_key, methods=["POST"]),
        Route("/usage", _usage, methods=["GET"]),
        Route("/audit", _audit, methods=["GET"]),
        Route("/cache", _cache, methods=["GET"]),
    ]


async def _tenants(request: Request) -> Response:
    found = await asyncio.to_thread(_tenancy(request).tenants.all)
    return json_response({"object": "list", "data": found})


async def _add_tenant(request: Request) -> Response:
    asked = await body_as(request, NewTenantBody)
    values = msgspec.structs.asdict(asked)
    name = values.pop("name")
    return json_response(await _do(request, lambda t, actor: t.tenants.add(name, values, actor=actor)), 201)


async def _tenant(request: Request) -> Response:
    return json_response(await asyncio.to_thread(_tenancy(request).tenants.get, request.path_params["tenant"]))


async def _change_tenant(request: Request) -> Response:
    asked = await body_as(request, dict[str, Any])
    name = request.path_params["tenant"]
    return json_response(await _do(request, lambda t, actor: t.tenants.change(name, asked, actor=actor)))


async def _remove_tenant(request: Request) -> Response:
    name = request.path_params["tenant"]
    await _do(request, lambda t, actor: t.tenants.remove(name, actor=actor))
    return json_response({"name": name, "object": "tenant", "deleted": True})


async def _keys(request: Request) -> Response:
    found = await asyncio.to_thread(_tenancy(request).tenants.keys, request.path_params["tenant"])
    return json_response({"object": "list", "data": [_shown(key) for key in found]})


async def _add_key(request: Request) -> Response:
    asked = msgspec.structs.asdict(await body_as(request, NewKeyBody))
    name = request.path_params["tenant"]
    new = await _do(request, lambda t, actor: t.tenants.add_key(name, actor=actor, **asked))
    return json_response(_shown_once(new), 201)


async def _revoke_key(request: Request) -> Response:
    key = request.path_params["key"]
    return json_response(_shown(await _do(request, lambda t, actor: t.tenants.revoke_key(key, actor=actor))))


async def _rotate_key(request: Request) -> Response:
    asked, key = await body_as(request, RotateBody), request.path_params["key"]
    grace = asked.grace_seconds
    new = await _do(request, lambda t, actor: t.tenants.rotate_key(key, actor=actor, grace_seconds=grace))
    return json_response(_shown_once(new), 201)


async def _prompts(request: Request) -> Response:
    store = _tenancy(request).registry
    return json_response(
        {"object": "list", "data": await asyncio.to_thread(store.prompts, request.path_params["tenant"])}
    )


async def _usage(request: Request) -> Response:
    return await usage_answer(request, tenant_asked(request))


async def _audit(request: Request) -> Response:
    database = _tenancy(request).require_database()
    tenant, before = tenant_asked(request), number(request, "before", 2**53)
    limit = number(request, "limit", 100, 1, 1000)
    found = await asyncio.to_thread(audit.entries, database, tenant, before, limit)
    return json_response({"object": "list", "data": found})


async def _cache(request: Request) -> Response:
    """The engine's counters, the pins and whose pages lie where."""
    service: ChatService = request.app.state.service
    report = await service.engine.inspect()
    load = {name: getattr(report.load, name) for name in report.load.__struct_fields__}
    load |= {name: msgspec.structs.asdict(load[name]) for name in ("hits", "misses")}
    tenants = [msgspec.structs.asdict(pages) for pages in report.tenants]
    return json_response({"pages": service.engine.info.pages, "load": load, "pins": report.pins, "tenants": tenants})


def _tenancy(request: Request) -> Tenancy:
    """Raises ``DatabaseError`` without one."""
    service: ChatService = request.app.state.service
    service.tenancy.require_database()
    return service.tenancy


async def _do(request: Request, act: Callable[[Tenancy, str], Any]) -> Any:
    """Change something in a worker thread, and take the change over at once."""
    tenancy, identity = _tenancy(request), identity_of(request.scope)
    result = await asyncio.to_thread(act, tenancy, identity.actor)
    await tenancy.look()
    return result


def _shown(key: Key, secret: str | msgspec.UnsetType = msgspec.UNSET) -> KeyAnswer:
    return KeyAnswer(
        key.id,
        key.tenant,
        key.last_four,
        key.label,
        sorted(key.scopes),
        key.namespace,
        key.created,
        key.expires,
        key.revoked,
        secret,
    )


def _shown_once(new: NewKey) -> KeyAnswer:
    return _shown(new.key, new.secret)
