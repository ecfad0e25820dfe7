"""What /metrics shows, under the names that people know from other servers, with our prefix.

Knows the engine's ``Load`` and what a request went through. Labels never hold text, keys or ids of clients.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.engine.messages import EngineInfo, Load

_TTFT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_ITL = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_WHOLE = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
_TOKENS = (1, 8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters and histograms of this server, and the engine's load as it is when somebody looks."""

    def __init__(self, info: EngineInfo, load: Callable[[], Load], alive: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineLoad(info, load, alive))

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"banyan:{name}", what, buckets=buckets, registry=self._registry)

        self.ttft = histogram("time_to_first_token_seconds", "From the request to its first token", _TTFT)
        self.itl = histogram("inter_token_latency_seconds", "Between two tokens of one request", _ITL)
        self.queue = histogram("request_queue_time_seconds", "Waiting for the engine to begin", _TTFT)
        self.whole = histogram("e2e_request_latency_seconds", "From the request to its last token", _WHOLE)
        self.prompt = histogram("request_prompt_tokens", "Prompt tokens of a request", _TOKENS)
        self.output = histogram("request_generation_tokens", "Tokens drawn for a request", _TOKENS)
        self.ended = Counter(
            "banyan:request_success", "Requests by how they ended", ["finished_reason"], registry=self._registry
        )

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)


class _EngineLoad(Collector):
    def __init__(self, info: EngineInfo, load: Callable[[], Load], alive: Callable[[], bool]) -> None:
        self._info = info
        self._load = load
        self._alive = alive

    def collect(self) -> Iterator[Metric]:
        load, pages = self._load(), max(1, self._info.pages)
        yield _gauge("engine_up", "1 while the engine lives", float(self._alive()))
        yield _gauge("num_requests_running", "Requests in the batch", load.running)
        yield _gauge("num_requests_waiting", "Requests that wait for pages or a slot", load.waiting)
        yield _gauge("kv_cache_usage_perc", "Share of KV pages held by requests, 0 to 1", load.pages_private / pages)
        states = GaugeMetricFamily("banyan:kv_pages", "KV pages by state", labels=["state"])
        for state, count in (
            ("free", load.pages_free),
            ("cached", load.pages_cached),
            ("private", load.pages_private),
        ):
            states.add_metric([state], count)
        yield states
        for name, what, value in (
            ("prompt_tokens", "Prompt tokens of started requests", load.prompt_tokens),
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", load.prompt_tokens),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", load.cached_tokens),
            ("computed_tokens", "Tokens that went through the model", load.computed_tokens),
            ("generation_tokens", "Tokens drawn", load.output_tokens),
            ("num_preemptions", "Requests that gave their slot back and waited again", load.preemptions),
            ("evicted_pages", "Cached pages that made room", load.evicted_pages),
            ("engine_steps", "Steps of the engine", load.steps),
        ):
            yield CounterMetricFamily(f"banyan:{name}", what, value=value)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"banyan:{name}", what, value=value)
