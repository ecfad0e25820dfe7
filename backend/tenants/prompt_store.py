"""The registry of system prompts in the database: versions that never change, and a pointer to the latest one.

Each change is one transaction with its audit entry; audit gets ids, versions and sizes, never text.
"""

import difflib
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.errors import RequestError
from backend.tenants import audit, changes
from backend.tenants.database import Database
from backend.tenants.names import LOCAL, can_be_asked, check_prompt_id, check_text
from backend.tenants.schema import prompt_versions, prompts
from backend.tenants.tenant_store import existing_tenant

Pin = Literal["none", "soft", "hard"]

TEXT_CHARS = 400_000
_MOST_PROMPTS = 1000
_MOST_VERSIONS = 1000


class Question(msgspec.Struct, frozen=True):
    """A question that a prompt's facts answer, for people who try it."""

    question: str
    answer: str


class Prompt(msgspec.Struct, frozen=True):
    """``latest``: the version that is served when none is named."""

    tenant: str
    id: str
    name: str
    description: str
    questions: tuple[Question, ...]
    latest: int
    newest: int
    created: int


class PromptVersion(msgspec.Struct, frozen=True):
    """``public``: every tenant may use it and shares its pages. ``locked``: its tenant's callers may bring no system
    prompt of their own while it is the latest. ``pin``: whether its pages stay in the cache."""

    tenant: str
    id: str
    version: int
    text: str
    public: bool
    locked: bool
    pin: Pin
    created: int


class PromptStore:
    """``clock``: Unix time in seconds. Every method raises ``DatabaseError``."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def publish(
        self,
        tenant: str,
        prompt_id: str,
        text: str,
        *,
        actor: str,
        public: bool = False,
        locked: bool = False,
        pin: Pin = "soft",
        name: str | None = None,
        description: str | None = None,
        questions: tuple[Question, ...] | None = None,
    ) -> PromptVersion:
        """A new version, which becomes the latest. Name, description and questions stay when they are None. Raises
        ``RequestError``."""
        if not check_text(text, "text", TEXT_CHARS).strip():
            raise RequestError("text is empty", param="text")
        now = int(self._clock())
        with self._database.writing() as connection:
            if tenant != LOCAL:
                existing_tenant(connection, tenant)
            old = _find(connection, tenant, check_prompt_id(prompt_id))
            version = 1 if old is None else old.newest + 1
            if version > _MOST_VERSIONS:
                raise RequestError(f"at most {_MOST_VERSIONS} versions of a prompt", code="too_many", status=409)
            about = _about(old, prompt_id, name, description, questions)
            row = about | {"tenant": tenant, "id": prompt_id, "latest": version, "newest": version}
            if old is None:
                _refuse_too_many(connection, tenant)
                connection.execute(sa.insert(prompts), row | {"created": now})
            else:
                connection.execute(sa.update(prompts).where(_is(prompts, tenant, prompt_id)), row)
            new = PromptVersion(tenant, prompt_id, version, text, public, locked, pin, now)
            connection.execute(sa.insert(prompt_versions), msgspec.structs.asdict(new))
            words = f"{len(text)} characters, {'public' if public else 'private'}, pin {pin}"
            self._note(connection, actor, "prompt.publish", new, words + (", locked" if locked else ""))
        return new

    def rollback(self, tenant: str, prompt_id: str, version: int, *, actor: str) -> PromptVersion:
        """Make an earlier (or later) version the latest. Raises ``RequestError`` (404)."""
        with self._database.writing() as connection:
            _existing(connection, tenant, prompt_id)
            found = _version(connection, tenant, prompt_id, version)
            connection.execute(sa.update(prompts).where(_is(prompts, tenant, prompt_id)).values(latest=version))
            self._note(connection, actor, "prompt.rollback", found)
        return found

    def remove(self, tenant: str, prompt_id: str, *, actor: str) -> None:
        """The prompt and all of its versions. Raises ``RequestError`` (404)."""
        with self._database.writing() as connection:
            prompt = _existing(connection, tenant, prompt_id)
            latest = _version(connection, tenant, prompt_id, prompt.latest)
            for table in (prompt_versions, prompts):
                connection.execute(sa.delete(table).where(_is(table, tenant, prompt_id)))
            self._note(connection, actor, "prompt.remove", latest)

    def prompts(self, tenant: str) -> list[Prompt]:
        """All of a tenant, by id."""
        if not can_be_asked(tenant):
            return []
        with self._database.reading() as connection:
            return read_prompts(connection, tenant)

    def versions(self, tenant: str, prompt_id: str) -> list[PromptVersion]:
        """All, the oldest first. Raises ``RequestError`` (404)."""
        with self._database.reading() as connection:
            _existing(connection, tenant, prompt_id)
            where = _is(prompt_versions, tenant, prompt_id)
            rows = connection.execute(sa.select(prompt_versions).where(where).order_by(prompt_versions.c.version))
            return [PromptVersion(**row) for row in rows.mappings()]

    def get(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        """A version, the latest when none is named. Raises ``RequestError`` (404)."""
        with self._database.reading() as connection:
            prompt = _existing(connection, tenant, prompt_id)
            return _version(connection, tenant, prompt_id, prompt.latest if version is None else version)

    def diff(self, tenant: str, prompt_id: str, old: int, new: int) -> str:
        """A unified diff of two versions. Raises ``RequestError`` (404)."""
        one, two = self.get(tenant, prompt_id, old), self.get(tenant, prompt_id, new)
        names = (f"{prompt_id} version {old}", f"{prompt_id} version {new}")
        lines = difflib.unified_diff(one.text.splitlines(), two.text.splitlines(), *names, lineterm="")
        return "\n".join(lines)

    def _note(self, connection: Connection, actor: str, action: str, it: PromptVersion, detail: str = "") -> None:
        audit.record(connection, self._clock(), actor, action, it.tenant, f"{it.id}@{it.version}", detail)
        changes.changed(connection)


def read_prompts(connection: Connection, tenant: str | None = None) -> list[Prompt]:
    """Those of a tenant, or of all."""
    query = sa.select(prompts).order_by(prompts.c.tenant, prompts.c.id)
    if tenant is not None:
        query = query.where(prompts.c.tenant == tenant)
    return [_prompt(row) for row in connection.execute(query).mappings()]


def read_versions(connection: Connection) -> list[PromptVersion]:
    """All versions of all prompts."""
    return [PromptVersion(**row) for row in connection.execute(sa.select(prompt_versions)).mappings()]


def _prompt(row: Any) -> Prompt:
    return Prompt(**(dict(row) | {"questions": msgspec.json.decode(row["questions"], type=tuple[Question, ...])}))


def _is(table: sa.Table, tenant: str, prompt_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.tenant == tenant, table.c.id == prompt_id)


def _find(connection: Connection, tenant: str, prompt_id: str) -> Prompt | None:
    if not (can_be_asked(tenant) and can_be_asked(prompt_id)):
        return None
    row = connection.execute(sa.select(prompts).where(_is(prompts, tenant, prompt_id))).mappings().first()
    return None if row is None else _prompt(row)


def _existing(connection: Connection, tenant: str, prompt_id: str) -> Prompt:
    prompt = _find(connection, tenant, prompt_id)
    if prompt is None:
        raise RequestError(f"there is no prompt {prompt_id[:100]!r}", code="prompt_not_found", status=404, param="id")
    return prompt


def _version(connection: Connection, tenant: str, prompt_id: str, version: int) -> PromptVersion:
    where = sa.and_(_is(prompt_versions, tenant, prompt_id), prompt_versions.c.version == version)
    row = None
    if 0 < version <= _MOST_VERSIONS:
        row = connection.execute(sa.select(prompt_versions).where(where)).mappings().first()
    if row is None:
        raise RequestError(
            f"the prompt {prompt_id!r} has no version {version}", code="prompt_not_found", status=404, param="version"
        )
    return PromptVersion(**row)


def _about(
    old: Prompt | None,
    prompt_id: str,
    name: str | None,
    description: str | None,
    questions: tuple[Question, ...] | None,
) -> dict[str, str]:
    if name is None:
        name = prompt_id if old is None else old.name
    if description is None:
        description = "" if old is None else old.description
    if questions is None:
        questions = () if old is None else old.questions
    if len(questions) > 100:
        raise RequestError("at most 100 questions", param="questions")
    encoded = msgspec.json.encode(questions).decode()
    return {
        "name": check_text(name, "name", 200),
        "description": check_text(description, "description", 2000),
        "questions": check_text(encoded, "questions", 100_000),
    }


def _refuse_too_many(connection: Connection, tenant: str) -> None:
    if len(read_prompts(connection, tenant)) >= _MOST_PROMPTS:
        raise RequestError(f"at most {_MOST_PROMPTS} prompts of a tenant", code="too_many", status=409)
