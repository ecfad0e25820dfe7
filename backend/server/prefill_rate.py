"""How fast this server computes prompts, as it was measured here: a moving estimate. Knows no requests."""

_DECAY = 0.9  # of what is remembered, at each measurement
_FEWEST_TOKENS = 128  # below, the fixed cost of a step is most of what one would measure


class PrefillRate:
    """Milliseconds a prompt token costs; unknown until the first measurement. Long prompts count for more."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._ms = 0.0

    def add(self, computed_tokens: int, prefill_ms: float) -> None:
        """A request computed ``computed_tokens`` in ``prefill_ms``, waiting not counted."""
        if computed_tokens < _FEWEST_TOKENS or prefill_ms <= 0:
            return
        self._tokens = _DECAY * self._tokens + computed_tokens
        self._ms = _DECAY * self._ms + prefill_ms

    def saved_ms(self, cached_tokens: int) -> float | None:
        """Time that ``cached_tokens`` would have taken."""
        return round(cached_tokens * self._ms / self._tokens, 3) if self._tokens else None
