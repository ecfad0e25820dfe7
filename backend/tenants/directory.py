"""Who is who, in memory: tenants, keys and prompts as they were at the last look into the database.

Requests are checked against it, so they cost no query, and go on being checked when the database is gone. ``refresh``
asks for the counter of changes, and reads everything anew only when it has moved. Knows no server and no event loop.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from backend.tenants import changes, keys
from backend.tenants import identity as identities
from backend.tenants.database import Database
from backend.tenants.errors import DatabaseError
from backend.tenants.identity import Identity
from backend.tenants.keys import Key
from backend.tenants.limits import TenantLimits
from backend.tenants.names import LOCAL
from backend.tenants.prompt_store import Prompt, PromptVersion, read_prompts, read_versions
from backend.tenants.tenant_store import Tenant, read_keys, read_tenants

T = TypeVar("T")

_log = logging.getLogger("banyan.tenants")


class Content(msgspec.Struct, frozen=True):
    """The tables at one moment. ``keys``: of each tenant. ``versions``: by tenant, prompt and number.

    The rest is for finding: prompts by owner; those of which everybody may use the latest version; versions by their
    text; and, by owner, versions with variables."""

    version: int = 0
    tenants: dict[str, Tenant] = {}
    keys: dict[str, tuple[Key, ...]] = {}
    prompts: dict[tuple[str, str], Prompt] = {}
    versions: dict[tuple[str, str, int], PromptVersion] = {}
    own: dict[str, tuple[Prompt, ...]] = {}
    public: tuple[Prompt, ...] = ()
    texts: dict[str, tuple[PromptVersion, ...]] = {}
    patterns: dict[str, tuple[PromptVersion, ...]] = {}


class Directory:
    """``clock``: Unix time in seconds. Reading is lock-free: ``content`` is replaced as a whole."""

    def __init__(
        self,
        database: Database | None,
        clock: Callable[[], float] = time.time,
        *,
        local: bool = True,
        local_limits: TenantLimits | None = None,
    ) -> None:
        """Without a database there is the local tenant only. ``local``: whether there is one while none is configured,
        which only a server that nobody else reaches may have; ``local_limits``: its limits, by default those that a
        tenant has of whom nothing is said. Raises ``DatabaseError``."""
        self._local_limits = local_limits or TenantLimits()
        self._database = database
        self._local = local
        self._clock = clock
        self.content = Content() if database is None else _read(database)
        self.reachable = True
        self._lock = threading.Lock()  # so that no older look overwrites a newer one

    @property
    def is_open(self) -> bool:
        """No tenant is configured and everybody is the local one."""
        return self._local and not self.content.tenants

    def live_keys(self) -> int:
        """Keys that open something now."""
        now = self._clock()
        return sum(key.is_live(now) for owned in self.content.keys.values() for key in owned)

    def limits(self, tenant: str) -> TenantLimits:
        """Of a tenant, or the local one's."""
        known = self.content.tenants.get(tenant)
        return known.limits if known is not None else self._local_limits

    def authenticate(self, secret: str | None) -> Identity | None:
        """Whose key this is; None when it opens nothing. Without tenants everybody is the local one."""
        if self.is_open:
            return identities.LOCAL
        tenant = keys.tenant_of(secret) if secret else None
        if secret is None or tenant is None or tenant not in self.content.tenants:
            return None
        hashed, now = keys.hash_of(secret), self._clock()
        for key in self.content.keys.get(tenant, ()):
            if keys.matches(key, hashed) and key.is_live(now):
                return _identity(key)
        return None

    def still(self, identity: Identity) -> bool:
        """Whether an identity that was given is one still: its key lives, with the same scopes."""
        if self.is_open:
            return identity == identities.LOCAL
        now = self._clock()
        owned = self.content.keys.get(identity.tenant, ()) if identity.tenant in self.content.tenants else ()
        return any(key.id == identity.key_id and key.is_live(now) and _identity(key) == identity for key in owned)

    def refresh(self) -> bool:
        """Look into the database; True when something has changed. Blocks. Raises nothing: what was known stays."""
        if self._database is None:
            return False
        with self._lock:
            return self._look(self._database)

    def _look(self, database: Database) -> bool:
        try:
            if changes.version(database) == self.content.version and self.reachable:
                return False
            before, self.content = self.content, _read(database)
        except DatabaseError as error:
            if self.reachable:
                _log.error("the database cannot be read, keys and tenants stay as they are: %s", error.message)
            self.reachable = False
            return False
        if not self.reachable:
            _log.warning("the database can be read again")
        self.reachable = True
        return self.content.version != before.version

    def prompts_of(self, tenant: str) -> list[Prompt]:
        """The tenant's own prompts, then those of others whose latest version is public."""
        return [*self.content.own.get(tenant, ()), *(p for p in self.content.public if p.tenant != tenant)]

    def own_prompts(self, tenant: str) -> tuple[Prompt, ...]:
        """The tenant's own. O(1)."""
        return self.content.own.get(tenant, ())

    def may_use(self, tenant: str, version: PromptVersion) -> bool:
        """Its own, or a public version of a prompt that is public now. O(1)."""
        if version.tenant == tenant:
            return True
        prompt = self.content.prompts.get((version.tenant, version.id))
        return prompt is not None and version.public and version.tenant != LOCAL and self.latest(prompt).public

    def versions_saying(self, tenant: str, text: str) -> list[PromptVersion]:
        """Versions with exactly this text that a tenant may use. O(how many say it)."""
        return [version for version in self.content.texts.get(text, ()) if self.may_use(tenant, version)]

    def versions_with_variables(self, tenant: str) -> list[PromptVersion]:
        """Of its own prompts and of public ones. O(its own, and public prompts)."""
        owners = dict.fromkeys((tenant, *(prompt.tenant for prompt in self.content.public)))
        found = (version for owner in owners for version in self.content.patterns.get(owner, ()))
        return [version for version in found if self.may_use(tenant, version)]

    def versions_of(self, tenant: str) -> list[PromptVersion]:
        """All versions that a tenant may name: of its own prompts, and public ones of others'."""
        prompts = {(prompt.tenant, prompt.id) for prompt in self.prompts_of(tenant)}
        found = [v for v in self.content.versions.values() if (v.tenant, v.id) in prompts]
        return [version for version in found if version.public or version.tenant == tenant]

    def latest(self, prompt: Prompt) -> PromptVersion:
        """The version that is served."""
        return self.content.versions[prompt.tenant, prompt.id, prompt.latest]


def _identity(key: Key) -> Identity:
    return Identity(key.tenant, key.id, key.scopes, key.namespace)


def _read(database: Database) -> Content:
    """The counter first: what changes meanwhile moves it again, and is read by the next look."""
    with database.reading() as connection:
        version = changes.read_version(connection)
        tenants = {tenant.name: tenant for tenant in read_tenants(connection)}
        owned: dict[str, tuple[Key, ...]] = {}
        for key in read_keys(connection):
            if key.revoked is None:
                owned[key.tenant] = (*owned.get(key.tenant, ()), key)
        found = {(v.tenant, v.id, v.version): v for v in read_versions(connection)}
        prompts = {(p.tenant, p.id): p for p in read_prompts(connection) if (p.tenant, p.id, p.latest) in found}
    own: dict[str, list[Prompt]] = {}
    public = []
    for prompt in prompts.values():
        own.setdefault(prompt.tenant, []).append(prompt)
        if prompt.tenant != LOCAL and found[prompt.tenant, prompt.id, prompt.latest].public:
            public.append(prompt)
    texts: dict[str, list[PromptVersion]] = {}
    patterns: dict[str, list[PromptVersion]] = {}
    for it in found.values():
        if "{{" in it.text:
            patterns.setdefault(it.tenant, []).append(it)
        texts.setdefault(it.text, []).append(it)
    return Content(
        version, tenants, owned, prompts, found, _frozen(own), tuple(public), _frozen(texts), _frozen(patterns)
    )


def _frozen(lists: dict[str, list[T]]) -> dict[str, tuple[T, ...]]:
    return {key: tuple(values) for key, values in lists.items()}
