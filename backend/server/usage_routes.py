"""``GET /v1/usage``: what the asking tenant has used, and of its budget. The same answer serves ``/admin/v1/usage``."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from backend.server.asked_json import number
from backend.server.identity import identity_of
from backend.server.json_http import json_response
from backend.server.service import ChatService

_DAY = 86_400


async def own_usage(request: Request) -> Response:
    """By key and hour, the newest first; ``since`` and ``until``: Unix seconds, by default the last seven days."""
    return await usage_answer(request, identity_of(request.scope).tenant)


async def usage_answer(request: Request, tenant: str | None) -> Response:
    """Of one tenant, or of all."""
    service: ChatService = request.app.state.service
    tenancy = service.tenancy
    tenancy.require_database()
    now = int(tenancy.wall())
    since, until = number(request, "since", now - 7 * _DAY), number(request, "until", now + 1)
    limit = number(request, "limit", 1000, 1, 10_000)
    hours = await asyncio.to_thread(tenancy.usage.hours, tenant, since, until, limit)
    totals = await asyncio.to_thread(tenancy.usage.total, tenant, since, until)
    answer: dict[str, object] = {"object": "list", "data": hours, "totals": totals}
    if tenant is not None:
        limits = tenancy.directory.limits(tenant)
        answer["budget"] = {
            "period": limits.budget_period,
            "spent_tokens": tenancy.limiter.spent(tenant, tenancy.wall()),
            "soft_tokens": limits.soft_budget_tokens,
            "hard_tokens": limits.hard_budget_tokens,
        }
    return json_response(answer)
