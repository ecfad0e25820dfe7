"""How fast this server computes prompts, as it was measured here: a moving estimate. Knows no requests."""

_WEIGHT = 0.2
_FEWEST_TOKENS = 16  # below, the fixed cost of a step is all one would measure


class PrefillRate:
    """Milliseconds a prompt token costs, None until the first measurement."""

    def __init__(self) -> None:
        self._ms_per_token: float | None = None

    def add(self, computed_tokens: int, prefill_ms: float) -> None:
        """A request computed ``computed_tokens`` in ``prefill_ms``, waiting not counted."""
        if computed_tokens < _FEWEST_TOKENS or prefill_ms <= 0:
            return
        value = prefill_ms / computed_tokens
        old = self._ms_per_token
        self._ms_per_token = value if old is None else old + _WEIGHT * (value - old)

    def saved_ms(self, cached_tokens: int) -> float | None:
        """Time that ``cached_tokens`` would have taken."""
        return None if self._ms_per_token is None else round(cached_tokens * self._ms_per_token, 3)
