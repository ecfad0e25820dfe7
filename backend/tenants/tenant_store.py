"""Tenants and their keys in the database. Each change is one transaction with its audit entry."""

import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.errors import RequestError
from backend.tenants import audit, changes, keys
from backend.tenants.database import Database
from backend.tenants.identity import DEFAULT_SCOPES, SCOPES
from backend.tenants.keys import Key
from backend.tenants.limits import TenantLimits, changed
from backend.tenants.names import can_be_asked, check_namespace, check_tenant_name, check_text
from backend.tenants.schema import keys as key_table
from backend.tenants.schema import prompt_versions, prompts, responses
from backend.tenants.schema import tenants as tenant_table

LIVE_KEYS = 2
"""A tenant's live keys, unless an operator says otherwise: the old one and the new one while keys are rotated."""
_MOST_TENANTS = 10_000
_MOST_WEIGHT = 1000.0
_MOST_PAGES = 2**31 - 1


class Tenant(msgspec.Struct, frozen=True):
    """``weight``: share in the order of service; ``page_limit``: most KV pages, 0 for none; ``page_watermark``: above
    which its pages are evicted first, 0 for nine tenths of the limit."""

    name: str
    weight: float = 1.0
    page_limit: int = 0
    page_watermark: int = 0
    limits: TenantLimits = TenantLimits()
    created: int = 0


class NewKey(msgspec.Struct, frozen=True):
    """``secret`` is known here only, and never again."""

    key: Key
    secret: str


class TenantStore:
    """``clock``: Unix time in seconds. Every method raises ``DatabaseError``."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # ---- tenants -------------------------------------------------------------------------------------

    def add(self, name: str, changes_: dict[str, Any] | None = None, *, actor: str) -> Tenant:
        """A new tenant. Raises ``RequestError``: the name is taken or wrong, or a value is."""
        now = int(self._clock())
        tenant = _changed(Tenant(check_tenant_name(name), created=now), changes_ or {})
        with self._database.writing() as connection:
            if _find(connection, name) is not None:
                raise RequestError(
                    f"there is a tenant {name!r} already", code="already_exists", status=409, param="name"
                )
            if connection.execute(sa.select(sa.func.count()).select_from(tenant_table)).scalar_one() >= _MOST_TENANTS:
                raise RequestError(f"at most {_MOST_TENANTS} tenants", code="too_many", status=409)
            connection.execute(sa.insert(tenant_table), _row(tenant))
            self._note(connection, actor, "tenant.add", name, name, _words(changes_ or {}))
        return tenant

    def change(self, name: str, changes_: dict[str, Any], *, actor: str) -> Tenant:
        """Replace ``weight``, ``page_limit``, ``page_watermark``, values in ``limits``. Raises ``RequestError``."""
        with self._database.writing() as connection:
            tenant = _changed(existing_tenant(connection, name), changes_)
            connection.execute(sa.update(tenant_table).where(tenant_table.c.name == name), _row(tenant))
            self._note(connection, actor, "tenant.set", name, name, _words(changes_))
        return tenant

    def remove(self, name: str, *, actor: str) -> None:
        """The tenant, its keys, prompts and stored conversations; usage and audit stay. Raises ``RequestError``."""
        with self._database.writing() as connection:
            existing_tenant(connection, name)
            for table in (key_table, prompt_versions, prompts, responses):
                connection.execute(sa.delete(table).where(table.c.tenant == name))
            connection.execute(sa.delete(tenant_table).where(tenant_table.c.name == name))
            self._note(connection, actor, "tenant.remove", name, name)

    def get(self, name: str) -> Tenant:
        """Raises ``RequestError`` (404) for an unknown one."""
        with self._database.reading() as connection:
            return existing_tenant(connection, name)

    def all(self) -> list[Tenant]:
        """All, by name."""
        with self._database.reading() as connection:
            return read_tenants(connection)

    # ---- keys ----------------------------------------------------------------------------------------

    def add_key(
        self,
        tenant: str,
        *,
        actor: str,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        label: str = "",
        namespace: str = "",
        expires: int | None = None,
        live_keys: int = LIVE_KEYS,
    ) -> NewKey:
        """A new key. ``live_keys``: refused when the tenant has as many already. Raises ``RequestError``."""
        with self._database.writing() as connection:
            existing_tenant(connection, tenant)
            new = self._new_key(tenant, scopes, label, namespace, expires)
            self._refuse_too_many(connection, tenant, live_keys)
            self._insert_key(connection, actor, "key.add", new.key)
        return new

    def rotate_key(self, key_id: str, *, actor: str, tenant: str | None = None, grace_seconds: int = 86_400) -> NewKey:
        """A new key like ``key_id``, which expires after ``grace_seconds``. Raises ``RequestError``."""
        if not 0 <= grace_seconds <= 10**9:
            raise RequestError("grace_seconds is from 0 to 1,000,000,000", param="grace_seconds")
        now = int(self._clock())
        with self._database.writing() as connection:
            old = _existing_key(connection, key_id, tenant)
            if not old.is_live(now):
                raise RequestError(f"the key {key_id} is not live; add a new one", code="key_not_live", status=409)
            new = self._new_key(old.tenant, old.scopes, old.label, old.namespace, None)
            self._refuse_too_many(connection, old.tenant, LIVE_KEYS + (grace_seconds == 0))
            ends = min(now + grace_seconds, now + grace_seconds if old.expires is None else old.expires)
            connection.execute(sa.update(key_table).where(key_table.c.id == key_id).values(expires=ends))
            self._insert_key(connection, actor, "key.rotate", new.key, f"instead of {key_id}")
        return new

    def revoke_key(self, key_id: str, *, actor: str, tenant: str | None = None) -> Key:
        """From now on the key opens nothing; again is fine. ``tenant``: only when it is this one's. Raises
        ``RequestError`` (404)."""
        now = int(self._clock())
        with self._database.writing() as connection:
            key = _existing_key(connection, key_id, tenant)
            if key.revoked is not None:
                return key
            connection.execute(sa.update(key_table).where(key_table.c.id == key_id).values(revoked=now))
            self._note(connection, actor, "key.revoke", key.tenant, key_id)
        return msgspec.structs.replace(key, revoked=now)

    def keys(self, tenant: str | None = None) -> list[Key]:
        """All of a tenant, or of all, the oldest first; also revoked ones. Raises ``RequestError`` for an unknown
        tenant."""
        with self._database.reading() as connection:
            if tenant is not None:
                existing_tenant(connection, tenant)
            return [key for key in read_keys(connection) if tenant in (None, key.tenant)]

    # ---- parts ---------------------------------------------------------------------------------------

    def _new_key(self, tenant: str, scopes: Iterable[str], label: str, namespace: str, expires: int | None) -> NewKey:
        now = int(self._clock())
        asked = frozenset(scopes)
        if not asked or not asked <= set(SCOPES):
            wrong = ", ".join(sorted(asked - set(SCOPES)))[:200] or "none"
            raise RequestError(f"scopes are some of {', '.join(SCOPES)}, not {wrong}", param="scopes")
        if expires is not None and not now < expires < 2**53:
            raise RequestError("a key expires in the future (Unix seconds)", param="expires")
        secret = keys.new_secret(tenant)
        key = Key(
            id=f"key_{secrets.token_hex(8)}",
            tenant=tenant,
            hash=keys.hash_of(secret),
            last_four=secret[-4:],
            label=check_text(label, "label", 200),
            scopes=asked,
            namespace=check_namespace(namespace),
            created=now,
            expires=expires,
        )
        return NewKey(key, secret)

    def _refuse_too_many(self, connection: Connection, tenant: str, most: int) -> None:
        now = self._clock()
        live = [key for key in read_keys(connection) if key.tenant == tenant and key.is_live(now)]
        if len(live) >= most:
            which = ", ".join(f"{key.id} (…{key.last_four})" for key in live[:10])
            raise RequestError(
                f"the tenant {tenant!r} has {len(live)} live keys, at most {most} are allowed: {which}; revoke one"
                " first",
                code="too_many_keys",
                status=409,
            )

    def _insert_key(self, connection: Connection, actor: str, action: str, key: Key, detail: str = "") -> None:
        row = msgspec.structs.asdict(key) | {"scopes": " ".join(sorted(key.scopes))}
        connection.execute(sa.insert(key_table), row)
        words = f"scopes {row['scopes']}" + (f"; {detail}" if detail else "")
        self._note(connection, actor, action, key.tenant, key.id, words)

    def _note(
        self, connection: Connection, actor: str, action: str, tenant: str, target: str, detail: str = ""
    ) -> None:
        audit.record(connection, self._clock(), actor, action, tenant, target, detail)
        changes.changed(connection)


def read_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, by name."""
    rows = connection.execute(sa.select(tenant_table).order_by(tenant_table.c.name)).mappings()
    return [_tenant(row) for row in rows]


def read_keys(connection: Connection) -> list[Key]:
    """All keys, the oldest first."""
    rows = connection.execute(sa.select(key_table).order_by(key_table.c.created, key_table.c.id)).mappings()
    return [_key(row) for row in rows]


def _tenant(row: Any) -> Tenant:
    return Tenant(**(dict(row) | {"limits": msgspec.json.decode(row["limits"], type=TenantLimits)}))


def _key(row: Any) -> Key:
    return Key(**(dict(row) | {"scopes": frozenset(row["scopes"].split()), "hash": bytes(row["hash"])}))


def _row(tenant: Tenant) -> dict[str, Any]:
    return msgspec.structs.asdict(tenant) | {"limits": msgspec.json.encode(tenant.limits).decode()}


def _find(connection: Connection, name: str) -> Tenant | None:
    if not can_be_asked(name):
        return None
    row = connection.execute(sa.select(tenant_table).where(tenant_table.c.name == name)).mappings().first()
    return None if row is None else _tenant(row)


def existing_tenant(connection: Connection, name: str) -> Tenant:
    """Raises ``RequestError`` (404) for an unknown one."""
    tenant = _find(connection, name)
    if tenant is None:
        raise RequestError(f"there is no tenant {name[:100]!r}", code="not_found", status=404, param="tenant")
    return tenant


def _existing_key(connection: Connection, key_id: str, tenant: str | None) -> Key:
    query = sa.select(key_table).where(key_table.c.id == key_id)
    row = connection.execute(query).mappings().first() if can_be_asked(key_id) else None
    key = None if row is None else _key(row)
    if key is None or tenant not in (None, key.tenant):
        raise RequestError(f"there is no key {key_id[:100]!r}", code="not_found", status=404, param="key")
    return key


def _changed(tenant: Tenant, changes_: dict[str, Any]) -> Tenant:
    """Raises ``RequestError`` naming the value that is wrong."""
    limits = changes_.get("limits", {})
    if not isinstance(limits, dict):
        raise RequestError("limits is an object", param="limits")
    rest = {name: value for name, value in changes_.items() if name != "limits"}
    for name, value in rest.items():
        if name not in ("weight", "page_limit", "page_watermark"):
            raise RequestError(f"a tenant has no {name[:100]!r} that can be set", param=name[:100])
        if isinstance(value, bool) or not isinstance(value, (int, float) if name == "weight" else int):
            raise RequestError(f"{name} is a number", param=name)
    new = msgspec.structs.replace(tenant, limits=changed(tenant.limits, limits), **rest)
    if not 0 < new.weight <= _MOST_WEIGHT:  # false for NaN too
        raise RequestError(f"weight is above 0 and at most {_MOST_WEIGHT:g}", param="weight")
    if not 0 <= new.page_limit <= _MOST_PAGES:
        raise RequestError(f"page_limit is from 0 to {_MOST_PAGES}", param="page_limit")
    if not 0 <= new.page_watermark <= new.page_limit:
        raise RequestError("page_watermark is from 0 to page_limit", param="page_watermark")
    return msgspec.structs.replace(new, weight=float(new.weight))


def _words(values: dict[str, Any]) -> str:
    """For audit: what was set."""
    flat = {name: value for name, value in values.items() if name != "limits"} | values.get("limits", {})
    return ", ".join(f"{name}={value}" for name, value in flat.items())
