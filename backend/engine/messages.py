"""What travels between the server process and the engine process: token ids and numbers only, msgpack, never pickle.

Knows nothing of text, tenants' secrets or tensors.
"""

import msgspec

from radix.pins import PinState as PinState  # these records travel on as they are
from radix.snapshot import NodeView as NodeView
from radix.snapshot import Snapshot as Snapshot
from radix.stats import TenantPages as TenantPages
from radix.stats import TokenCounts as TokenCounts
from radix.stats import classify as classify
from scheduler.lanes import Lane as Lane
from scheduler.load import Load as Load
from scheduler.plan import Sampling
from scheduler.plan import TokenLogprobs as TokenLogprobs


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """A new request. ``prompt``: token ids as little-endian uint32; ``seconds``: most time until the end,
    ``queue_seconds``: until it first runs, 0 for none. ``system_tokens``, ``history_tokens``, ``open_ended``: as in
    ``NewRequest``.

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
    queue_seconds: float = 0.0
    system_tokens: int = 0
    history_tokens: int = 0
    open_ended: bool = False


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """End a request; idempotent, unknown ids are ignored. No further output follows once the engine has seen it."""

    request: int


class Inspect(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Ask for one ``Report`` (tests, metrics). ``check``: also verify every invariant of cache and scheduler."""

    check: bool = False


class PublishPrompt(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Share a system prompt between all tenants, compute it now, and keep it. ``pin``: ``soft``, ``hard`` or empty.
    ``name`` is unique among those that are pinned. Answered by ``PromptPublished``."""

    name: str
    prompt: bytes
    pin: str = "soft"


class WithdrawPrompt(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The prompt is public no longer; what was computed of it may be evicted. Unknown ones are ignored."""

    name: str
    prompt: bytes


class SetTenant(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Weight in the order of service, and a quota of KV pages (``page_limit`` 0: none; ``page_watermark`` 0: nine
    tenths of the limit). Wrong ones are refused by whoever sends them; the engine takes the defaults then."""

    tenant: str
    weight: float = 1.0
    page_limit: int = 0
    page_watermark: int = 0


class Look(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Ask for one ``Tree``: what ``tenant`` may see of the cache, or with ``everything`` an administrator."""

    tenant: str
    everything: bool = False
    limit: int = 200


class LookAtBatch(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Ask for one ``Lanes``: the requests of ``tenant``, or with ``everything`` of all."""

    tenant: str
    everything: bool = False
    limit: int = 256


class AreYouThere(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Ask for one ``IAmThere``. Answered at once, also while a step runs, and out of turn."""


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """End the engine now; open requests get nothing more."""


Command = (
    Submit | Cancel | Inspect | PublishPrompt | WithdrawPrompt | SetTenant | Look | LookAtBatch | AreYouThere | Shutdown
)


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
    """New tokens, a stop token included; ``finish`` as in ``scheduler.plan.Progress``. ``retry_after_s``: after an
    error, when trying again makes sense; 0: nobody can say. ``logprobs``: one for each token, when they were asked
    for; ``prompt_logprobs``: with the first token, for each of the prompt but its first."""

    request: int
    tokens: list[int]
    finish: str = ""
    code: str = ""
    message: str = ""
    retry_after_s: float = 0.0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


class StepOutput(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """One message per step, for all requests: the newly started, then new tokens and ends."""

    started: list[Started]
    outputs: list[Output]
    load: Load
    step_ms: float = 0.0


class Report(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``Inspect``. ``problem`` is empty, or the invariant that ``check`` found broken; ``pins`` and
    ``tenants`` say who holds which KV pages."""

    load: Load
    problem: str = ""
    pins: list[PinState] = []
    tenants: list[TenantPages] = []


class PromptPublished(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``PublishPrompt``. ``problem``: why it was not done; empty when it was."""

    name: str
    problem: str = ""


class Tree(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``Look``."""

    snapshot: Snapshot


class Lanes(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``LookAtBatch``."""

    lanes: list[Lane]


class IAmThere(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to ``AreYouThere``. ``step_s``: for how long the current step has been running; 0: none is."""

    step_s: float


Event = Loading | EngineInfo | StartFailed | StepOutput | Report | PromptPublished | Tree | Lanes | IAmThere
