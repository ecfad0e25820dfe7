"""What /metrics shows, under the names that people know from other servers, with our prefix.

Knows the engine's ``Load`` and what a request went through. Labels never hold text, keys or ids of clients.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from backend.engine.messages import EngineInfo, Load, TokenCounts

_TTFT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_ITL = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_WHOLE = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
_TOKENS = (1, 8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters and histograms of this server, and the engine's load as it is when somebody looks."""

    def __init__(self, info: EngineInfo, load: Callable[[], Load], alive: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineLoad(info, load, alive))

        def histogram(name: str, what: str, bounds: tuple[float, ...]) -> Histogram:
            made = Histogram(name, what, bounds)
            self._registry.register(made)
            return made

        self.ttft = histogram("time_to_first_token_seconds", "From the request to its first token", _TTFT)
        self.itl = histogram("inter_token_latency_seconds", "Between two tokens of one request", _ITL)
        self.queue = histogram("request_queue_time_seconds", "Waiting for the engine to begin", _TTFT)
        self.whole = histogram("e2e_request_latency_seconds", "From the request to its last token", _WHOLE)
        self.prompt = histogram("request_prompt_tokens", "Prompt tokens of a request", _TOKENS)
        self.output = histogram("request_generation_tokens", "Tokens drawn for a request", _TOKENS)
        self.ended = Counter(
            "banyan:request_success", "Requests by how they ended", ["finished_reason"], registry=self._registry
        )

    def add(self, collector: Collector) -> None:
        """Show what ``collector`` has, too."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)


class Histogram(Collector):
    """Counts values by ``bounds``, which are included. For one thread: the library's own, with a lock for each of its
    numbers, was a tenth of what a token costs the server."""

    def __init__(self, name: str, what: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._what = what
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        bounds = (*self._bounds, float("inf"))
        names = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(f"banyan:{self._name}", self._what, buckets=buckets, sum_value=self._sum)


class _EngineLoad(Collector):
    def __init__(self, info: EngineInfo, load: Callable[[], Load], alive: Callable[[], bool]) -> None:
        self._info = info
        self._load = load
        self._alive = alive

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        yield _gauge("engine_up", "1 while the engine lives", float(self._alive()))
        yield _gauge("num_requests_running", "Requests in the batch", load.running)
        yield _gauge("num_requests_waiting", "Requests that wait for pages or a slot", load.waiting)
        yield from self._pages(load)
        yield from _counters(load)

    def _pages(self, load: Load) -> Iterator[Metric]:
        locked = load.pages_cached - load.pages_evictable
        used = (locked + load.pages_private) / max(1, self._info.pages)
        yield _gauge("kv_cache_usage_perc", "Share of KV pages held by requests and hard pins, 0 to 1", used)
        states = {
            "free": load.pages_free,
            "private": load.pages_private,  # a request's own, not in the tree
            "held": locked - load.pages_pending,  # in the tree, in use
            "pending": load.pages_pending,  # in the tree, being written
            "evictable": load.pages_evictable,  # in the tree, held by nobody
        }
        pinned = {"soft": load.pages_pinned - load.pages_pinned_hard, "hard": load.pages_pinned_hard}
        yield _by_label(GaugeMetricFamily, "kv_pages", "KV pages by state; together they are the pool", "state", states)
        yield _by_label(GaugeMetricFamily, "kv_pages_pinned", "KV pages that pins ask for", "kind", pinned)


def _counters(load: Load) -> Iterator[Metric]:
    found, missed = "Prompt tokens found in the prefix cache, by class", "Prompt tokens not found there, by class"
    yield _by_label(CounterMetricFamily, "prefix_cache_hit_tokens", found, "class", _classes(load.hits))
    yield _by_label(CounterMetricFamily, "prefix_cache_miss_tokens", missed, "class", _classes(load.misses))
    for name, what, value in (
        ("prompt_tokens", "Prompt tokens of started requests", load.prompt_tokens),
        ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", load.prompt_tokens),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache", load.cached_tokens),
        ("computed_tokens", "Tokens that went through the model", load.computed_tokens),
        ("generation_tokens", "Tokens drawn", load.output_tokens),
        ("num_preemptions", "Requests that gave their slot back and waited again", load.preemptions),
        ("evicted_pages", "Cached pages that made room", load.evicted_pages),
        ("evicted_pages_for_quota", "Of these: a tenant's own, to keep it within its quota", load.evicted_for_quota),
        ("quota_refusals", "Times that a quota kept a request from getting pages", load.refused_for_quota),
        ("engine_steps", "Steps of the engine", load.steps),
    ):
        yield CounterMetricFamily(f"banyan:{name}", what, value=value)


def _classes(tokens: TokenCounts) -> dict[str, int]:
    return {"system": tokens.system, "history": tokens.history, "shared": tokens.shared}


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"banyan:{name}", what, value=value)


def _by_label(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    what: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"banyan:{name}", what, labels=[label])
    for value_of_label, value in values.items():
        family.add_metric([value_of_label], value)
    return family
