"""``banyan tenant demo``: the bundled businesses as tenants with long public prompts, so that sharing can be seen."""

import argparse
from typing import Any

import msgspec

from backend.cli.administration.places import actor, opened
from backend.cli.administration.tables import show
from backend.cli.checkpoint import DEMO_PROMPTS
from backend.server.prompts import SystemPrompt
from backend.tenants.prompt_store import PromptStore, Question
from backend.tenants.tenant_store import TenantStore

TENANTS = 3
SCOPES = ("chat", "models", "prompts:read", "usage:read")


def run(arguments: argparse.Namespace) -> int:
    """Make those that are not there; print the keys, once."""
    businesses = msgspec.json.decode(DEMO_PROMPTS.read_bytes(), type=list[SystemPrompt])[:TENANTS]
    rows: list[dict[str, Any]] = []
    with opened(arguments) as database:
        tenants, prompts = TenantStore(database), PromptStore(database)
        known = {tenant.name for tenant in tenants.all()}
        for business in businesses:
            name = business.id.lower()
            if name in known:
                rows.append(
                    {"tenant": name, "prompt": business.id, "key": "(there already; its key is not shown again)"}
                )
                continue
            tenants.add(name, actor=actor())
            prompts.publish(
                name,
                business.id,
                business.system_prompt,
                actor=actor(),
                public=True,
                name=business.name,
                description=business.blurb,
                questions=tuple(Question(q.question, q.answer) for q in business.sample_questions),
            )
            new = tenants.add_key(name, actor=actor(), scopes=SCOPES, label="demo")
            rows.append({"tenant": name, "prompt": business.id, "key": new.secret})
    show(rows, as_json=arguments.json, empty="")
    if not arguments.json:
        print("From now on the server wants a key from everybody. Undo: banyan tenant remove NAME, for each.")
    return 0
