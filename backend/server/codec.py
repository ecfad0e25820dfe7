"""The two wire forms of a message: JSON, and msgpack with the same fields. Knows how to read and write, no meaning."""

from types import ModuleType
from typing import Any

import msgspec

from backend.errors import RequestError
from backend.server.errors import decoding
from backend.server.events import CLIENT_EVENTS, ClientEvent, Envelope


class Codec:
    """``binary``: whether its frames are."""

    def __init__(self, form: ModuleType, name: str, *, binary: bool) -> None:
        self.binary = binary
        self.encode = form.Encoder().encode
        self._name = name
        self._envelope = form.Decoder(Envelope)
        self._events: dict[str, Any] = {event: form.Decoder(kind) for event, kind in CLIENT_EVENTS.items()}

    def envelope(self, message: str | bytes) -> Envelope:
        """Type and lane of a client's message. Raises ``RequestError``: ``invalid_json`` or ``invalid_request``."""
        if self.binary and isinstance(message, str):
            raise RequestError("this socket speaks msgpack in binary frames", code="invalid_json")
        envelope: Envelope = decoding(lambda: self._envelope.decode(message), self._name)
        return envelope

    def event(self, envelope: Envelope, message: str | bytes) -> ClientEvent:
        """The whole message. Raises ``RequestError`` for an unknown type, or the path of the field that is wrong."""
        if not isinstance(envelope.type, str):
            raise RequestError("type is missing", param="type")
        decoder = self._events.get(envelope.type)
        if decoder is None:
            raise RequestError(f"there is no event {envelope.type[:100]!r}", code="unknown_event", param="type")
        event: ClientEvent = decoding(lambda: decoder.decode(message), self._name)
        return event


JSON = Codec(msgspec.json, "JSON", binary=False)
MSGPACK = Codec(msgspec.msgpack, "msgpack", binary=True)

SUBPROTOCOLS = {"banyan.v1": JSON, "banyan.v1+msgpack": MSGPACK}
"""What a client may offer, best known first; extension events come with each."""
