"""The socket that listens. Imports nothing: it is wanted long before the server is."""

import socket

_SEND_BUFFER_BYTES = 64 << 10


def bound_send_buffers(listener: socket.socket) -> None:
    """Let the kernel hold little for a peer that does not read (Linux doubles the number): what it holds cannot be
    merged, and left to itself it takes megabytes. What is accepted inherits it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
