"""What a tenant may use: the numbers, their bounds, and how they are written. Knows no counters and no clock."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from backend.errors import RequestError

Count = Annotated[int, Meta(ge=0, le=10**15)]
Share = Annotated[float, Meta(ge=0, le=1)]


class TenantLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """0: no limit. ``streams``: responses in flight, ``queued``: those of them that have not begun.

    ``cached_weight``: what a cached prompt token counts for. Budgets are counted in charged tokens (prompt tokens,
    cached ones by weight, and output tokens) of a UTC day or month, or of all times: past the soft one callers are
    warned, past the hard one refused.
    """

    requests_per_minute: Count = 0
    input_tokens_per_minute: Count = 0
    output_tokens_per_minute: Count = 0
    streams: Count = 0
    queued: Count = 0
    sockets: Count = 0
    sockets_per_key: Count = 64
    cached_weight: Share = 0.1
    soft_budget_tokens: Count = 0
    hard_budget_tokens: Count = 0
    budget_period: Literal["day", "month", "all"] = "month"


def changed(limits: TenantLimits, changes: dict[str, Any]) -> TenantLimits:
    """``limits`` with some values replaced. Raises ``RequestError`` naming the one that is unknown or out of range."""
    for name in changes:
        if name not in TenantLimits.__struct_fields__:
            known = ", ".join(TenantLimits.__struct_fields__)
            raise RequestError(f"there is no limit {name[:100]!r}; known: {known}", param=f"limits.{name[:100]}")
    try:
        return msgspec.convert(msgspec.structs.asdict(limits) | changes, TenantLimits)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        name = path.removesuffix("`").removeprefix("$.")
        raise RequestError(f"{name}: {message}", param=f"limits.{name}") from None
