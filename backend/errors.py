"""Errors that reach people: each has a stable code, an HTTP status and a message that names what is wrong.

BanyanError
|- RequestError        the client's input; fails that request alone
|- StartError          the server cannot start: names the file, tensor, option or size
`- EngineError         the engine failed or is gone
"""


class BanyanError(Exception):
    """``code`` is for programs, the message for people, ``param`` the field or file that is wrong (or None).

    ``retry_after_s``: seconds after which trying again makes sense; 0: nobody can say.
    """

    def __init__(
        self, message: str, *, code: str, status: int = 500, param: str | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(BanyanError):
    """Something in a request is wrong; 4xx."""

    def __init__(
        self, message: str, *, code: str = "invalid_request", status: int = 400, param: str | None = None
    ) -> None:
        super().__init__(message, code=code, status=status, param=param)


class StartError(BanyanError):
    """The product cannot start as asked."""

    def __init__(self, message: str, *, code: str = "start_failed", param: str | None = None) -> None:
        super().__init__(message, code=code, status=500, param=param)


class EngineError(BanyanError):
    """The engine broke or is not there."""

    def __init__(self, message: str, *, code: str = "engine_error", status: int = 500) -> None:
        super().__init__(message, code=code, status=status)
