"""Errors of the database. Wrong names and values are ``RequestError``, as everywhere."""

from backend.errors import BanyanError


class DatabaseError(BanyanError):
    """The database is gone, full, locked or read-only; the transaction that met it changed nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="database_unavailable", status=503)
