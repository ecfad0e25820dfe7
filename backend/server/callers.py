"""Which names this server answers to, and which browsers' pages may call it. Reads headers of an ASGI scope, nothing
else.

A page of somebody else can make a browser call us: across sites, with an ``Origin`` that is not ours; or once its own
name was made to point at our address (DNS rebinding), with a ``Host`` that is not ours. Programs send no ``Origin``;
an address or ``localhost`` as ``Host`` is no name that anybody could have made point here.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from starlette.types import Scope

from backend.errors import RequestError

ANY_HOST = "*"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Callers(msgspec.Struct, frozen=True):
    """``hosts``: names besides addresses and ``localhost``, ``*`` for all; ``origins``: pages besides our own, as
    ``scheme://host[:port]`` in lower case."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def check(self, scope: Scope, *, has_keys: bool) -> None:
        """Raises ``RequestError`` (403): a ``Host`` or an ``Origin`` that is not allowed.

        ``has_keys``: callers need one, which a rebound page does not have: then all names are good, unless some are
        listed. Pages may read (GET, HEAD) what they like, as browsers show them nothing of it.
        """
        hosts = list(_values(scope, b"host"))
        any_name = ANY_HOST in self.hosts or (has_keys and not self.hosts)
        if not any_name and (wrong := [name for name in map(_name, hosts) if not self._is_ours(name)]):
            raise RequestError(
                f"this server does not answer to the name {wrong[0][:100]!r}: allow it with --allowed-hosts, or call "
                "its address",
                code="host_not_allowed",
                status=403,
            )
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            return
        for origin in _values(scope, b"origin"):
            if origin.lower() not in self.origins and not _is_same(origin, hosts[0] if hosts else ""):
                raise RequestError(
                    f"pages of {origin[:100]!r} may not call: allow them with --allowed-origins",
                    code="origin_not_allowed",
                    status=403,
                )

    def _is_ours(self, name: str) -> bool:
        return name == "localhost" or name in self.hosts or _is_address(name)


OURSELVES = Callers()


def names_this_machine(scope: Scope) -> bool:
    """Whether the Host header is ``localhost`` or a loopback address, or there is none."""
    names = [_name(host) for host in _values(scope, b"host")]
    return all(name == "localhost" or (_is_address(name) and ip_address(name).is_loopback) for name in names)


def _values(scope: Scope, wanted: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


def _name(host: str) -> str:
    """Of ``name:port``, in lower case; empty for what is neither a name nor an address."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    """Whether an ``Origin`` has the host and port of ``Host``, whose default port is that of the origin's scheme."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        ports = (page.port or default, here.port or default)
    except ValueError:
        return False
    return default is not None and page.hostname is not None and page.hostname == here.hostname and ports[0] == ports[1]
