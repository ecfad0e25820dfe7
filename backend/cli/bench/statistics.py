"""From what was seen of each request to the figures of a run. Pure: times are numbers that others took.

    TTFT     first content - send
    TPOT     (end of content - TTFT) / (output tokens - 1), per request
    ITL      gaps between tokens, pooled over all requests. Tokens that arrive in one frame have no gap between them
    latency  last content - send
    goodput  requests per second that meet every limit; attainment = those / requests *sent*, failed ones included

Tokens are counted by the server's usage; where it gives none, frames are counted and the run says so.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec


class Observation(msgspec.Struct):
    """One request as the client saw it. Times in seconds on one monotonic clock; ``frames_s``: when each text came.

    ``output_tokens``, ``prompt_tokens`` and ``cached_tokens`` are the server's usage, None where it gave none.
    ``error`` is empty when the answer came to its end.
    """

    conversation: int
    turn: int
    tenant: int
    asked_tokens: int
    sent_s: float
    frames_s: list[float] = []
    ended_s: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """It ended without an error and said something."""
        return not self.error and bool(self.frames_s)

    @property
    def tokens(self) -> int:
        """Output tokens by usage, else frames."""
        return self.output_tokens if self.output_tokens is not None else len(self.frames_s)

    @property
    def ttft_s(self) -> float:
        """Time to first token. Only where ``ok``."""
        return self.frames_s[0] - self.sent_s

    @property
    def latency_s(self) -> float:
        """Time to the last token. Only where ``ok``."""
        return self.frames_s[-1] - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for answers of one token."""
        return (self.latency_s - self.ttft_s) / (self.tokens - 1) if self.tokens > 1 else None

    def gaps_s(self) -> list[float]:
        """Gaps between its tokens: between frames as measured, and 0 for tokens that came in one frame with another."""
        between = [later - earlier for earlier, later in itertools.pairwise(self.frames_s)]
        return between + [0.0] * max(0, self.tokens - len(self.frames_s))


class Limits(msgspec.Struct, frozen=True):
    """What a good request keeps to, in milliseconds; None: no limit."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    latency_ms: float | None = None


class Distribution(msgspec.Struct, frozen=True):
    """Of one quantity, in milliseconds; ``count`` values. All zero when there are none."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Summary(msgspec.Struct, frozen=True):
    """The figures of one run. Rates are per second of ``seconds``, from the first send to the last end."""

    seconds: float
    sent: int
    ok: int
    failed: int
    not_sent: int
    errors: dict[str, int]
    short: int
    without_usage: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    tokens_per_frame: float
    goodput_per_s: float
    attainment: float
    ttft_ms: Distribution
    tpot_ms: Distribution
    itl_ms: Distribution
    latency_ms: Distribution


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Linear interpolation between the closest ranks of ascending values; raises ``ValueError`` when there are none."""
    if not ordered:
        raise ValueError("no values")
    rank = (len(ordered) - 1) * percent / 100
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def distribution(seconds: Iterable[float]) -> Distribution:
    """Summarize values given in seconds."""
    values = sorted(1000.0 * value for value in seconds)
    if not values:
        return Distribution()
    p50, p95, p99 = (round(percentile(values, percent), 3) for percent in (50, 95, 99))
    return Distribution(len(values), round(sum(values) / len(values), 3), p50, p95, p99, round(values[-1], 3))


def meets(request: Observation, limits: Limits) -> bool:
    """Whether a request came to its end within every limit."""
    if not request.ok:
        return False
    measured = (
        (request.ttft_s, limits.ttft_ms),
        (request.tpot_s or 0.0, limits.tpot_ms),
        (request.latency_s, limits.latency_ms),
    )
    return all(limit is None or 1000.0 * value <= limit for value, limit in measured)


def summarize(requests: Sequence[Observation], limits: Limits, planned: int) -> Summary:
    """The figures of a run of ``planned`` requests, of which these were sent. Failed ones only count as sent."""
    good = [request for request in requests if request.ok]
    seconds = max((r.ended_s for r in requests), default=0.0) - min((r.sent_s for r in requests), default=0.0)
    per_second = 1.0 / seconds if seconds > 0 else 0.0
    prompt = sum(r.prompt_tokens or 0 for r in good)
    output = sum(r.tokens for r in good)
    frames = sum(len(r.frames_s) for r in good)
    met = sum(meets(request, limits) for request in requests)
    return Summary(
        seconds=round(seconds, 3),
        sent=len(requests),
        ok=len(good),
        failed=len(requests) - len(good),
        not_sent=planned - len(requests),
        errors=dict(Counter(r.error or "no content" for r in requests if not r.ok)),
        short=sum(r.tokens < r.asked_tokens for r in good),
        without_usage=sum(r.output_tokens is None for r in good),
        prompt_tokens=prompt,
        cached_tokens=sum(r.cached_tokens or 0 for r in good),
        output_tokens=output,
        output_tokens_per_s=round(output * per_second, 3),
        total_tokens_per_s=round((prompt + output) * per_second, 3),
        requests_per_s=round(len(good) * per_second, 4),
        tokens_per_frame=round(output / frames, 3) if frames else 0.0,
        goodput_per_s=round(met * per_second, 4),
        attainment=round(met / len(requests), 4) if requests else 0.0,
        ttft_ms=distribution(r.ttft_s for r in good),
        tpot_ms=distribution(r.tpot_s for r in good if r.tpot_s is not None),
        itl_ms=distribution(gap for r in good for gap in r.gaps_s()),
        latency_ms=distribution(r.latency_s for r in good),
    )
