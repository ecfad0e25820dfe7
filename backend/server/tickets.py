"""Tickets: what a browser opens a socket with, because it cannot send a header there. Used once, within 30 s.

``TicketOffice`` is pure; randomness and time are arguments.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable

from backend.errors import BanyanError
from backend.server.identity import Identity

TICKET_SECONDS = 30.0
SUBPROTOCOL = "ticket."
_MOST = 10_000


class TicketOffice:
    """Gives tickets and takes them back. ``new_ticket``: unguessable text."""

    def __init__(self, new_ticket: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self._new_ticket = new_ticket
        self._open: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def issue(self, identity: Identity, now: float) -> str:
        """A ticket for a socket of ``identity``. Raises ``BanyanError`` (429) when too many are out."""
        self._drop_old(now)
        if len(self._open) >= _MOST:
            message = "too many tickets are out"
            raise BanyanError(message, code="rate_limit_exceeded", status=429, retry_after_s=TICKET_SECONDS)
        ticket = self._new_ticket()
        self._open[ticket] = (identity, now + TICKET_SECONDS)
        return ticket

    def redeem(self, ticket: str, now: float) -> Identity | None:
        """Whose it is; None when it is unknown, used or too old."""
        self._drop_old(now)
        found = self._open.pop(ticket, None)
        return found[0] if found is not None else None

    def _drop_old(self, now: float) -> None:
        while self._open and next(iter(self._open.values()))[1] <= now:
            self._open.popitem(last=False)
