"""The tables. Times are Unix seconds, token ids little-endian uint32. Migrations make them; a test compares the two.

``usage`` and ``audit`` only grow, a prompt's version never changes: triggers hold that, made by the migrations.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

HEAD = "0001"
"""The newest migration. Known here so that a start with nothing to do need not import alembic."""

metadata = MetaData()

counters = Table("counters", metadata, Column("name", String(32), primary_key=True), Column("value", BigInteger))

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("weight", Float, nullable=False),
    Column("page_limit", Integer, nullable=False),
    Column("page_watermark", Integer, nullable=False),
    Column("limits", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("last_four", String(4), nullable=False),
    Column("label", String(200), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Index("keys_by_tenant", "tenant"),
)

prompts = Table(
    "prompts",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("questions", Text, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("newest", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("locked", Boolean, nullable=False),
    Column("pin", String(8), nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id", "version"),
)

usage = Table(
    "usage",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("prompt", String(160), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("charged_tokens", BigInteger, nullable=False),
    Column("ttft_ms", Float),
    Column("reason", String(32), nullable=False),
    Index("usage_by_tenant", "tenant", "at"),
)

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("charged_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "key_id", "hour"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(120), nullable=False),
    Column("action", String(40), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("target", String(160), nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_by_tenant", "tenant", "id"),
)

responses = Table(
    "responses",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(128), nullable=False),
    Column("previous_id", String(128)),
    Column("ids", LargeBinary, nullable=False),
    Column("messages", Text, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("system_tokens", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    Index("responses_by_expiry", "expires"),
)
