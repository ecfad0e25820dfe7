"""What travels between the server process and the engine process: token ids and numbers only, msgpack, never pickle.

Knows nothing of text, tenants' secrets or tensors.
"""

import msgspec

from scheduler.load import Load as Load  # the same record travels on
from scheduler.plan import Sampling


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """A new request. ``prompt``: token ids as little-endian uint32; ``seconds``: most time until the end, 0 for none.

    ``request`` is chosen by the client of the engine and unique among its open requests.
    """

    request: int
    prompt: bytes
    max_tokens: int
    sampling: Sampling
    stop_tokens: list[int] = []
    tenant: str = "local"
    namespace: str = ""
    seconds: float = 0.0


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """End a request; idempotent, unknown ids are ignored. No further output follows once the engine has seen it."""

    request: int


class Inspect(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Ask for one ``Report`` (tests, metrics). ``check``: also verify every invariant of cache and scheduler."""

    check: bool = False


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """End the engine now; open requests get nothing more."""


Command = Submit | Cancel | Inspect | Shutdown


class Loading(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Start-up progress: ``done`` of ``total`` bytes of ``what``."""

    what: str
    done: int
    total: int


class EngineInfo(msgspec.Struct, frozen=True, array_like=True, tag="Ready", gc=False):
    """Sent once, when the engine takes requests. ``max_context``: most tokens of prompt and output together."""

    architecture: str
    parameters: int
    vocab_size: int
    max_context: int
    page_size: int
    pages: int
    max_running: int
    dtype: str
    device: str
    weights_bytes: int
    kv_bytes: int


class StartFailed(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The engine cannot start; ``message`` names the file, tensor or size that is wrong. The process ends after it."""

    code: str
    message: str


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request runs for the first time: ``cached`` of its prompt tokens were in the cache; it waited ``queue_ms``."""

    request: int
    cached: int
    queue_ms: float


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """New tokens, a stop token included; ``finish`` as in ``scheduler.plan.Progress``, or ``"deadline"``."""

    request: int
    tokens: list[int]
    finish: str = ""
    code: str = ""
    message: str = ""


class StepOutput(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """One message per step, for all requests: the newly started, then new tokens and ends."""

    started: list[Started]
    outputs: list[Output]
    load: Load
    step_ms: float = 0.0


class Report(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``Inspect``. ``problem`` is empty, or the invariant that ``check`` found broken."""

    load: Load
    problem: str = ""


Event = Loading | EngineInfo | StartFailed | StepOutput | Report
