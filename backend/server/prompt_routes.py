"""``/v1/prompts``: a tenant's own registry over HTTP. The same functions serve ``/admin/v1/tenants/{tenant}/prompts``.

GET  /v1/prompts                          all that the tenant may use
POST /v1/prompts                          publish a version {id, text, public, locked, pin, name, ...}
GET, DELETE /v1/prompts/{id}              the latest version; the prompt with all of its versions
GET  /v1/prompts/{id}/versions            all versions, without their texts
GET  /v1/prompts/{id}/versions/{version}
GET  /v1/prompts/{id}/diff?old=1&new=2
POST /v1/prompts/{id}/rollback {version}
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from backend.errors import RequestError
from backend.server.asked_json import body_as, number
from backend.server.identity import Identity, identity_of
from backend.server.json_http import json_response
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.tenants.prompt_store import Pin, PromptStore, PromptVersion, Question

TenantOf = Callable[[Request], str]


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/prompts``."""

    id: str
    text: str
    public: bool = False
    locked: bool = False
    pin: Pin = "soft"
    name: str | None = None
    description: str | None = None
    questions: tuple[Question, ...] | None = None


class RollbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/prompts/{id}/rollback``."""

    version: int


class VersionAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version; ``text`` where one was asked for."""

    id: str
    version: int
    public: bool
    locked: bool
    pin: str
    created: int
    latest: bool
    characters: int
    text: str | None = None
    object: str = "prompt.version"


async def visible_versions(request: Request) -> Response:
    """Of a prompt that the tenant may use: its own, another's public one (``owner/id``), a bundled one."""
    found, latest = _seen(request)
    return json_response({"object": "list", "data": [_answer(version, latest) for version in found]})


async def visible_version(request: Request) -> Response:
    """One of them, or the latest, with its text."""
    found, latest = _seen(request)
    number = request.path_params.get("version", latest)
    for version in found:
        if version.version == number:
            return json_response(_answer(version, latest, text=True))
    message = f"there is no version {str(number)[:20]} of it"
    raise RequestError(message, code="prompt_not_found", status=404, param="version")


def visible_routes(at: str) -> list[BaseRoute]:
    """What everybody may read who may use a prompt; goes before ``routes``, whose answers are about own prompts."""
    return [
        Route(at + "/{id:path}/versions", visible_versions, methods=["GET"]),
        Route(at + "/{id:path}/versions/{version:int}", visible_version, methods=["GET"]),
    ]


def _seen(request: Request) -> tuple[list[PromptVersion], int]:
    service: ChatService = request.app.state.service
    return service.prompts.versions(own_tenant(request), request.path_params["id"])


def routes(at: str, tenant_of: TenantOf) -> list[BaseRoute]:
    """Everything but the list, at and below the path ``at``."""

    async def publish(request: Request) -> Response:
        asked = await body_as(request, PublishBody)
        store, tenant, identity = _store(request), tenant_of(request), identity_of(request.scope)
        # what is public lies in everybody's cache, and takes of its budget: an operator's decision
        if (asked.public or asked.pin == "hard") and not identity.sees_everything:
            raise RequestError(
                "publishing for all tenants, or pinned hard, needs the scope 'admin'",
                code="insufficient_scope",
                status=403,
                param="public" if asked.public else "pin",
            )
        about = {name: getattr(asked, name) for name in ("public", "locked", "pin", "name", "description", "questions")}
        new = await asyncio.to_thread(
            lambda: store.publish(tenant, asked.id, asked.text, actor=identity.actor, **about)
        )
        await _tenancy(request).look()
        return json_response(_answer(new, new.version), 201)

    async def latest(request: Request) -> Response:
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        found = await asyncio.to_thread(store.get, tenant, name)
        return json_response(_answer(found, found.version, text=True))

    async def remove(request: Request) -> Response:
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        await asyncio.to_thread(lambda: store.remove(tenant, name, actor=identity_of(request.scope).actor))
        await _tenancy(request).look()
        return json_response({"id": name, "object": "prompt", "deleted": True})

    async def versions(request: Request) -> Response:
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        found = await asyncio.to_thread(store.versions, tenant, name)
        now = (await asyncio.to_thread(store.get, tenant, name)).version
        return json_response({"object": "list", "data": [_answer(version, now) for version in found]})

    async def version(request: Request) -> Response:
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        found = await asyncio.to_thread(store.get, tenant, name, request.path_params["version"])
        now = (await asyncio.to_thread(store.get, tenant, name)).version
        return json_response(_answer(found, now, text=True))

    async def diff(request: Request) -> Response:
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        old, new = number(request, "old", 1), number(request, "new", 2)
        text = await asyncio.to_thread(store.diff, tenant, name, old, new)
        return json_response({"id": name, "old": old, "new": new, "diff": text})

    async def rollback(request: Request) -> Response:
        asked = await body_as(request, RollbackBody)
        store, tenant, name = _store(request), tenant_of(request), request.path_params["id"]
        actor = identity_of(request.scope).actor
        found = await asyncio.to_thread(lambda: store.rollback(tenant, name, asked.version, actor=actor))
        await _tenancy(request).look()
        return json_response(_answer(found, found.version))

    return [
        Route(at, publish, methods=["POST"]),
        Route(at + "/{id}", latest, methods=["GET"]),
        Route(at + "/{id}", remove, methods=["DELETE"]),
        Route(at + "/{id}/versions", versions, methods=["GET"]),
        Route(at + "/{id}/versions/{version:int}", version, methods=["GET"]),
        Route(at + "/{id}/diff", diff, methods=["GET"]),
        Route(at + "/{id}/rollback", rollback, methods=["POST"]),
    ]


def own_tenant(request: Request) -> str:
    """Of whose key this is."""
    identity: Identity = identity_of(request.scope)
    return identity.tenant


def _tenancy(request: Request) -> Tenancy:
    service: ChatService = request.app.state.service
    return service.tenancy


def _store(request: Request) -> PromptStore:
    tenancy = _tenancy(request)
    tenancy.require_database()
    return tenancy.registry


def _answer(version: PromptVersion, latest: int, *, text: bool = False) -> VersionAnswer:
    return VersionAnswer(
        version.id,
        version.version,
        version.public,
        version.locked,
        version.pin,
        version.created,
        version.version == latest,
        len(version.text),
        version.text if text else None,
    )
