"""What a finished response leaves for the next turn, and where it is kept when the client asks for that (``store``).

Knows exact token ids and messages. Knows no session and no database: ``ConversationStore`` is an interface.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import msgspec

from backend.server.events import Response
from backend.server.messages import with_system
from backend.text.conversation import Conversation, ConversationEncoder, Prompt
from backend.text.template import Message


class Past(msgspec.Struct, frozen=True):
    """A history to go on from: a turn with its exact ids, and messages that nobody has answered yet (of a response
    that was only to warm the cache)."""

    conversation: Conversation | None
    waiting: tuple[Message, ...] = ()


class StoredTurn(msgspec.Struct, frozen=True):
    """A finished response as it is kept. ``ids``: little-endian uint32; ``answered``: how many of ``messages`` the ids
    stand for, the others are ``Past.waiting``."""

    response: Response
    ids: bytes
    messages: list[Message]
    answered: int
    system_tokens: int

    @classmethod
    def of(cls, response: Response, past: Past) -> "StoredTurn":
        """The record of a turn."""
        turn = past.conversation
        if turn is None:
            return cls(response, b"", list(past.waiting), 0, 0)
        messages = [*turn.messages, *past.waiting]
        return cls(response, turn.ids.tobytes(), messages, len(turn.messages), turn.system_tokens)

    def past(self) -> Past:
        """The history to go on from."""
        answered, waiting = tuple(self.messages[: self.answered]), tuple(self.messages[self.answered :])
        if not answered:
            return Past(None, waiting)
        return Past(Conversation(array("I", self.ids), answered, self.system_tokens), waiting)


class ConversationStore(Protocol):
    """Finished responses by tenant and id. Its methods may block: they are called in threads, several at once.

    Each raises ``BanyanError`` when it cannot do it; nothing is then half done.
    """

    def save(self, tenant: str, response_id: str, turn: StoredTurn) -> None:
        """Keep ``turn``."""
        ...

    def load(self, tenant: str, response_id: str) -> StoredTurn | None:
        """What was kept under exactly this id by exactly this tenant."""
        ...

    def delete(self, tenant: str, response_id: str) -> bool:
        """Forget it; False when it was not there."""
        ...


class MemoryStore:
    """A ``ConversationStore`` that a restart empties: the last ``most`` turns and ``most_bytes`` of ids and text."""

    def __init__(self, most: int = 4096, most_bytes: int = 64 << 20) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._turns: OrderedDict[tuple[str, str], StoredTurn] = OrderedDict()
        self._lock = threading.Lock()

    def save(self, tenant: str, response_id: str, turn: StoredTurn) -> None:
        """Keep ``turn``; the oldest go when there are too many."""
        with self._lock:
            self._turns[tenant, response_id] = turn
            self._bytes += _size(turn)
            while len(self._turns) > self._most or (self._bytes > self._most_bytes and len(self._turns) > 1):
                self._bytes -= _size(self._turns.popitem(last=False)[1])

    def load(self, tenant: str, response_id: str) -> StoredTurn | None:
        """What was kept."""
        with self._lock:
            return self._turns.get((tenant, response_id))

    def delete(self, tenant: str, response_id: str) -> bool:
        """Forget it."""
        with self._lock:
            turn = self._turns.pop((tenant, response_id), None)
            self._bytes -= _size(turn) if turn is not None else 0
            return turn is not None


def prompt_of(
    encoder: ConversationEncoder, past: Past | None, instructions: str | None, messages: Sequence[Message]
) -> Prompt:
    """The next prompt. The system prompt carries over; a different one means that all is rendered anew.

    Raises ``RequestError`` when the template refuses it.
    """
    if past is not None and past.conversation is None:
        return encoder.begin(_under(instructions, [*past.waiting, *messages]))
    if past is None or past.conversation is None:
        return encoder.begin(with_system(instructions, messages))
    turn, messages = past.conversation, [*past.waiting, *messages]
    system = turn.messages[0]["content"] if turn.messages[0]["role"] == "system" else None
    if instructions is None or instructions == system:
        return encoder.extend(turn, messages)
    return encoder.begin(_under(instructions, [*turn.messages, *messages]))


def _under(instructions: str | None, messages: list[Message]) -> list[Message]:
    """``messages`` with the system message replaced, when ``instructions`` are given."""
    if instructions is None:
        return with_system(None, messages)
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return with_system(instructions, rest)


def _size(turn: StoredTurn) -> int:
    return len(turn.ids) + sum(len(message["content"]) for message in turn.messages) + 1024
