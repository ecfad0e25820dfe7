"""Whether a browser's page may talk to us: only one that we served. Reads headers of an ASGI scope, nothing else."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers


def is_same_origin(headers: Headers) -> bool:
    """True without an ``Origin`` (no browser's cross-site request), or when it has the host and port of ``Host``."""
    origin = headers.get("origin")
    if origin is None:
        return True
    host = headers.get("host", "")
    try:
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        there = urlsplit(f"//{host}")
        ports = (parts.port or default, there.port or default)
    except ValueError:
        return False
    return (
        default is not None and parts.hostname is not None and parts.hostname == there.hostname and ports[0] == ports[1]
    )
