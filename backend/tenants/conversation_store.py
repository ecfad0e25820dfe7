"""Responses that were to be stored: what the next turn goes on from, after a restart too.

Always asked for by tenant and id together: another tenant's response is one that is not there.
"""

import time
from array import array
from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from backend.tenants.database import Database
from backend.tenants.names import can_be_asked
from backend.tenants.schema import responses

KEPT_SECONDS = 30 * 86_400


class StoredResponse(msgspec.Struct, frozen=True):
    """A finished response. ``ids``: all tokens of the conversation up to its end.

    ``messages``: roles and texts, of which the first ``answered`` are in the ids; ``body``: the response object as
    JSON, for who asks for it. ``created``, ``expires``: Unix seconds, 0: now, and in 30 days.
    """

    id: str
    previous_id: str | None
    ids: "array[int]"
    messages: tuple[dict[str, str], ...]
    answered: int = 0
    system_tokens: int = 0
    body: str = ""
    created: int = 0
    expires: int = 0


class ConversationStore:
    """``clock``: Unix time in seconds. Every method raises ``DatabaseError``."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def save(self, tenant: str, response: StoredResponse) -> None:
        """Store it, or replace the one with this id."""
        created = response.created or int(self._clock())
        row = {
            "tenant": tenant,
            "id": response.id,
            "previous_id": response.previous_id,
            "ids": response.ids.tobytes(),
            "messages": msgspec.json.encode(response.messages).decode(),  # JSON escapes NUL, which PostgreSQL refuses
            "answered": response.answered,
            "system_tokens": response.system_tokens,
            "body": response.body,
            "created": created,
            "expires": response.expires or created + KEPT_SECONDS,
        }
        with self._database.writing() as connection:
            connection.execute(sa.delete(responses).where(_is(tenant, response.id)))
            connection.execute(sa.insert(responses), row)

    def load(self, tenant: str, response_id: str) -> StoredResponse | None:
        """None when this tenant has no such response, or it has expired."""
        if not can_be_asked(response_id):
            return None
        query = sa.select(responses).where(_is(tenant, response_id), responses.c.expires > self._clock())
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        ids = array("I")
        ids.frombytes(bytes(row["ids"]))
        messages = msgspec.json.decode(row["messages"], type=tuple[dict[str, str], ...])
        return StoredResponse(
            row["id"],
            row["previous_id"],
            ids,
            messages,
            row["answered"],
            row["system_tokens"],
            row["body"],
            row["created"],
            row["expires"],
        )

    def delete(self, tenant: str, response_id: str) -> bool:
        """False when this tenant had no such response."""
        if not can_be_asked(response_id):
            return False
        with self._database.writing() as connection:
            return connection.execute(sa.delete(responses).where(_is(tenant, response_id))).rowcount > 0

    def expire(self) -> int:
        """Delete what has expired; how many."""
        with self._database.writing() as connection:
            return connection.execute(sa.delete(responses).where(responses.c.expires <= self._clock())).rowcount


def _is(tenant: str, response_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(responses.c.tenant == tenant, responses.c.id == response_id)
