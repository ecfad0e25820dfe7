"""Frames on the stream between server and engine: four bytes of length, then msgpack. Not what they mean."""

import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import asyncio

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 64 << 20


def encode(message: Any, encoder: msgspec.msgpack.Encoder = msgspec.msgpack.Encoder()) -> bytes:  # noqa: B008
    """A message as one frame."""
    body = encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Reads frames from a blocking socket; ``None`` at the end of the stream."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb", buffering=1 << 16)

    def read(self) -> bytes | None:
        """The body of the next frame. A frame cut off in the middle counts as the end: the other side is gone."""
        head = self._file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack(head)
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"frame of {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
        body = self._file.read(size)
        return body if len(body) == size else None


async def read_frame(reader: "asyncio.StreamReader") -> bytes | None:
    """The body of the next frame from an asyncio stream; ``None`` at the end of the stream."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        (size,) = _LENGTH.unpack(head)
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"frame of {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
        return await reader.readexactly(size)
    except (EOFError, ConnectionError):  # asyncio.IncompleteReadError is an EOFError
        return None
