"""Finished responses in the tenants' database, as the protocol keeps them (``conversations.ConversationStore``)."""

from array import array

import msgspec

from backend.server.conversations import StoredTurn
from backend.server.events import Response
from backend.tenants.conversation_store import ConversationStore, StoredResponse
from backend.text.template import Message


class DatabaseStore:
    """Its methods block, and raise ``BanyanError`` where the database does not answer."""

    def __init__(self, rows: ConversationStore) -> None:
        self._rows = rows

    def save(self, tenant: str, response_id: str, turn: StoredTurn) -> None:
        """Keep ``turn``; nothing is half written."""
        ids = array("I")
        ids.frombytes(turn.ids)
        stored = StoredResponse(
            response_id,
            turn.response.previous_response_id,
            ids,
            tuple(dict(message) for message in turn.messages),
            turn.answered,
            turn.system_tokens,
            msgspec.json.encode(turn.response).decode(),
        )
        self._rows.save(tenant, stored)

    def load(self, tenant: str, response_id: str) -> StoredTurn | None:
        """What was kept under exactly this id by exactly this tenant."""
        found = self._rows.load(tenant, response_id)
        if found is None:
            return None
        return StoredTurn(
            msgspec.json.decode(found.body, type=Response),
            found.ids.tobytes(),
            msgspec.convert(list(found.messages), list[Message]),
            found.answered,
            found.system_tokens,
        )

    def delete(self, tenant: str, response_id: str) -> bool:
        """Forget it; False when it was not there."""
        return self._rows.delete(tenant, response_id)
