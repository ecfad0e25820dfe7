"""From what was recorded to the figures of a run. Pure."""

from collections.abc import Sequence

import msgspec

from radix.stats import TokenCounts
from scheduler.simulate.histogram import percentile
from scheduler.simulate.recorder import Recorder
from scheduler.simulate.replica import Replica


class TenantFigures(msgspec.Struct, frozen=True):
    """Of one tenant. ``share``: of the service (uncached prompt + weighted output tokens) that was completed while
    requests still arrived, of everything when all arrived at once; TTFT within 0.5 %."""

    tenant: str
    requests: int
    share: float
    ttft_p50: float
    ttft_p99: float


class ReplicaFigures(msgspec.Struct, frozen=True):
    """Of one replica. ``requests`` that it accepted; ``busy``: share of the run in which its device computed."""

    requests: int
    hit_rate: float
    busy: float


class Figures(msgspec.Struct, frozen=True):
    """Times in seconds, rates per second of ``seconds`` (first arrival at 0 to the last end). TTFT is exact, other
    percentiles within 0.5 %.

    requests, rejected, expired   sent; refused at once; dropped because their turn did not come in time
    offered_per_s     requests sent per second until the last arrival; 0 when all came at once
    output_per_s      output tokens; ``requests_per_s``: finished requests
    goodput_per_s     requests that met every limit; ``attainment``: their share of those *sent*
    ttft, tpot, itl   first token - arrival; mean gap of a request; gaps of all requests pooled
    latency           arrival to last token; ``latency_per_token``: ... / output tokens ("normalized latency")
    hit_rate          cached of all prompt tokens; ``hits``, ``misses``: by class
    kv_empty          of the page slots that running requests hold, the share with no token in it
    kv_reuse          tokens that running requests attend to, for each page slot that they hold: above 1 by sharing
    idle_rows         share of rows that ran empty while requests waited
    busy              share of the run in which devices computed
    """

    requests: int
    rejected: int
    expired: int
    seconds: float
    steps: int
    offered_per_s: float
    output_per_s: float
    requests_per_s: float
    goodput_per_s: float
    attainment: float
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    itl_p50: float
    itl_p99: float
    itl_max: float
    latency_p50: float
    latency_p99: float
    latency_per_token_p50: float
    latency_per_token_p99: float
    hit_rate: float
    hits: TokenCounts
    misses: TokenCounts
    prompt_tokens: int
    computed_tokens: int
    output_tokens: int
    preemptions: int
    evicted_pages: int
    kv_empty: float
    kv_reuse: float
    idle_rows: float
    busy: float
    tenants: list[TenantFigures]
    replicas: list[ReplicaFigures]


def figures_of(recorder: Recorder, replicas: Sequence[Replica]) -> Figures:
    """The figures of a run that has come to its end. O(requests log requests)."""
    loads = [replica.scheduler.load() for replica in replicas]
    steps = sum(load.steps for load in loads)
    prompt = sum(load.prompt_tokens for load in loads)
    output = sum(load.output_tokens for load in loads)
    hits = sum((load.hits for load in loads), TokenCounts())
    seconds = recorder.last_end
    ttft = sorted(recorder.ttft)
    allocated = sum(replica.memory.allocated for replica in replicas)
    rows = replicas[0].scheduler.settings.max_running
    return Figures(
        requests=recorder.sent,
        rejected=recorder.rejected,
        expired=recorder.expired,
        seconds=seconds,
        steps=steps,
        offered_per_s=_ratio(recorder.sent, recorder.last_arrival),
        output_per_s=_ratio(output, seconds),
        requests_per_s=_ratio(recorder.finished, seconds),
        goodput_per_s=_ratio(recorder.good, seconds),
        attainment=_ratio(recorder.good, recorder.sent),
        ttft_p50=percentile(ttft, 0.5),
        ttft_p99=percentile(ttft, 0.99),
        tpot_p50=recorder.tpot.percentile(0.5),
        tpot_p99=recorder.tpot.percentile(0.99),
        itl_p50=recorder.itl.percentile(0.5),
        itl_p99=recorder.itl.percentile(0.99),
        itl_max=recorder.itl.max,
        latency_p50=recorder.latency.percentile(0.5),
        latency_p99=recorder.latency.percentile(0.99),
        latency_per_token_p50=recorder.latency_per_token.percentile(0.5),
        latency_per_token_p99=recorder.latency_per_token.percentile(0.99),
        hit_rate=_ratio(hits.total, prompt),
        hits=hits,
        misses=sum((load.misses for load in loads), TokenCounts()),
        prompt_tokens=prompt,
        computed_tokens=sum(load.computed_tokens for load in loads),
        output_tokens=output,
        preemptions=sum(load.preemptions for load in loads),
        evicted_pages=sum(load.evicted_pages for load in loads),
        kv_empty=_ratio(sum(replica.memory.empty for replica in replicas), allocated),
        kv_reuse=_ratio(sum(replica.memory.tokens for replica in replicas), allocated),
        idle_rows=_ratio(sum(replica.idle_rows for replica in replicas), steps * rows),
        busy=_ratio(sum(_busy(replica, seconds) for replica in replicas), len(replicas)),
        tenants=_tenants(recorder),
        replicas=[
            ReplicaFigures(replica.taken_in, _ratio(load.cached_tokens, load.prompt_tokens), _busy(replica, seconds))
            for replica, load in zip(replicas, loads, strict=True)
        ],
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _busy(replica: Replica, seconds: float) -> float:
    return min(_ratio(replica.device.busy, seconds), 1.0)  # a step planned ahead may run on after the last end


def _tenants(recorder: Recorder) -> list[TenantFigures]:
    """By service, most first."""
    records = recorder.tenants.items()
    then = sum(record.service_then for _, record in records)
    whole = sum(record.service for _, record in records)
    found = [
        TenantFigures(
            name,
            record.requests,
            _ratio(record.service_then, then) if then else _ratio(record.service, whole),
            record.ttft.percentile(0.5),
            record.ttft.percentile(0.99),
        )
        for name, record in records
    ]
    return sorted(found, key=lambda tenant: (-tenant.share, tenant.tenant))
