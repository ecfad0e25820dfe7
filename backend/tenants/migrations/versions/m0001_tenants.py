"""Tenants, keys, prompts, usage, audit, stored responses; and the triggers that keep what only grows."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# table: what is refused there. Usage may be deleted (retention); what was recorded is never rewritten.
_KEPT = {"audit": ("UPDATE", "DELETE"), "usage": ("UPDATE",), "prompt_versions": ("UPDATE",)}


def upgrade() -> None:
    """Everything at once: the first version."""
    _tenants_and_keys()
    _prompts()
    _usage_and_audit()
    op.create_table(
        "responses",
        _text("tenant", 64),
        _text("id", 128),
        sa.Column("previous_id", sa.String(128)),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.Column("system_tokens", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        _number("created"),
        _number("expires"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("responses_by_expiry", "responses", ["expires"])
    for table, events in _KEPT.items():
        _refuse(table, events)


def _tenants_and_keys() -> None:
    counters = op.create_table(
        "counters", sa.Column("name", sa.String(32), primary_key=True), sa.Column("value", sa.BigInteger)
    )
    op.bulk_insert(counters, [{"name": "version", "value": 1}])
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("page_limit", sa.Integer, nullable=False),
        sa.Column("page_watermark", sa.Integer, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        _number("created"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), primary_key=True),
        _text("tenant", 64),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        _text("last_four", 4),
        _text("label", 200),
        _text("scopes", 200),
        _text("namespace", 64),
        _number("created"),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_index("keys_by_tenant", "keys", ["tenant"])


def _prompts() -> None:
    op.create_table(
        "prompts",
        _text("tenant", 64),
        _text("id", 64),
        _text("name", 200),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("questions", sa.Text, nullable=False),
        sa.Column("latest", sa.Integer, nullable=False),
        sa.Column("newest", sa.Integer, nullable=False),
        _number("created"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_table(
        "prompt_versions",
        _text("tenant", 64),
        _text("id", 64),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("locked", sa.Boolean, nullable=False),
        _text("pin", 8),
        _number("created"),
        sa.PrimaryKeyConstraint("tenant", "id", "version"),
    )


def _usage_and_audit() -> None:
    tokens = ("input_tokens", "cached_tokens", "output_tokens", "charged_tokens")
    op.create_table(
        "usage",
        sa.Column("id", sa.String(32), primary_key=True),
        _number("at"),
        _text("tenant", 64),
        _text("key_id", 32),
        _text("prompt", 160),
        *map(_number, tokens),
        sa.Column("ttft_ms", sa.Float),
        _text("reason", 32),
    )
    op.create_index("usage_by_tenant", "usage", ["tenant", "at"])
    op.create_table(
        "usage_hours",
        _text("tenant", 64),
        _text("key_id", 32),
        *map(_number, ("hour", "requests", *tokens)),
        sa.PrimaryKeyConstraint("tenant", "key_id", "hour"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        _number("at"),
        _text("actor", 120),
        _text("action", 40),
        _text("tenant", 64),
        _text("target", 160),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("audit_by_tenant", "audit", ["tenant", "id"])


def _text(name: str, size: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(size), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _refuse(table: str, events: tuple[str, ...]) -> None:
    """A trigger for each event that makes it fail."""
    words = f"{table} only grows"
    if op.get_bind().dialect.name == "sqlite":
        for event in events:
            op.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{words}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_kept BEFORE {' OR '.join(events)} ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_refuse()"
    )
