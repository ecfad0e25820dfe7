"""What the cache and the scheduler promise, as figures of the simulator. Prints tables; no pass or fail.

    python -m benchmarks.scheduling [cold] [fair] [isolation] [long] [waste] [overlap] [ladder] [--json FILE]

Without names all of them, in about ten minutes. Every figure is a prediction of a cost model
(``scheduler/machines.py``) driven by the engine's own scheduler and step loop; what can be shown on the real engine:
``benchmarks.engine_promises``.
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from scheduler.chat_trace import ChatShape, chat
from scheduler.machines import H200_8B
from scheduler.settings import Settings
from scheduler.simulate.figures import Figures
from scheduler.simulate.fleet import Fleet, simulate
from scheduler.simulate.replica import Engine
from scheduler.trace import TracedRequest, shared_prefixes, token_block

PAGE = 16
AIM_S = 0.05
SETTINGS = Settings(
    page_size=PAGE,
    pages=H200_8B.kv_tokens // PAGE,
    max_running=H200_8B.max_running,
    max_step_tokens=8192,
    max_context=65_536,
    max_waiting=100_000,
    inter_token_s=AIM_S,
    isolation_s=AIM_S / 4,
)


def engine(**settings: Any) -> Engine:
    """The H200 of the notes with an 8B model; ``settings`` differ from ``SETTINGS``. It learns what steps take."""
    return Engine(replace(SETTINGS, **settings), H200_8B.cost, learns=True)


def show(rows: list[dict[str, Any]]) -> None:
    """A table with the keys of the first row as its head."""
    heads = list(rows[0])
    cells = [[f"{value:,.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(len(head), *(len(row[at]) for row in cells)) for at, head in enumerate(heads)]
    for line in [heads, *cells]:
        print(
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )


# ---------------------------------------------------------------------- 64 cold requests on one system prompt


def cold() -> list[dict[str, Any]]:
    """64 requests at once, cold, on one system prompt of 2,048 tokens, each with 64 tokens of its own."""
    trace = list(shared_prefixes(1, 64, 2048, 64, 1))
    rows = []
    for name, changed in (("shared", {}), ("chunks of 512", {"max_step_tokens": 512}), ("paged", {"arm": "paged"})):
        figures = simulate(trace, engine(**changed))
        rows.append(
            {
                "arm": name,
                "prompt tokens computed": figures.computed_tokens,
                "2,048 + 64 x 64": 2048 + 64 * 64,
                "TTFT p50 s": figures.ttft_p50,
                "p99 s": figures.ttft_p99,
            }
        )
    return rows


# ---------------------------------------------------------------------- a quiet tenant beside a loud one


def requests_of(tenant: str, seed: int, rate: float, seconds: float) -> Iterator[TracedRequest]:
    """Conversations of one tenant on one system prompt."""
    shape = ChatShape(requests=int(rate * seconds), rate=rate, tenants=1, turns=1.0, system_tokens=1024, seed=seed)
    for traced in chat(shape):
        prompt = token_block(f"system of {tenant}", 1024) + traced.prompt[4 * 1024 :]
        yield replace(traced, tenant=tenant, prompt=prompt)


def fair() -> list[dict[str, Any]]:
    """A quiet tenant alone, and beside one that sends ten times as much: more than half, and more than all there is."""
    rows = []
    for name, quiet_rate, loud_rate in (
        ("quiet alone", 4.0, 0.0),
        ("beside ten times as much", 4.0, 40.0),
        ("quiet alone, busy", 16.0, 0.0),
        ("beside ten times as much: overload", 16.0, 160.0),
    ):
        quiet = list(requests_of("quiet", 1, quiet_rate, 60))
        loud = list(requests_of("loud", 2, loud_rate, 60)) if loud_rate else []
        trace = sorted([*quiet, *loud], key=lambda traced: traced.arrival)
        figures = simulate(trace, engine())
        mine = next(tenant for tenant in figures.tenants if tenant.tenant == "quiet")
        rows.append(
            {
                "quiet tenant": name,
                "requests/s": quiet_rate,
                "loud requests/s": loud_rate,
                "device busy": figures.busy,
                "share of service": mine.share,
                "TTFT p50 s": mine.ttft_p50,
                "p99 s": mine.ttft_p99,
            }
        )
    for alone, beside in ((0, 1), (2, 3)):
        rows[alone]["p99 to alone"] = 1.0
        rows[beside]["p99 to alone"] = rows[beside]["p99 s"] / rows[alone]["p99 s"]
    return rows


def isolation(seconds: float = 30.0) -> list[dict[str, Any]]:
    """What the quiet tenant gains in overload, and what it costs, by the longest step of the loud one."""
    quiet = list(requests_of("quiet", 1, 16.0, seconds))
    loud = list(requests_of("loud", 2, 160.0, seconds))
    trace = sorted([*quiet, *loud], key=lambda traced: traced.arrival)
    alone = simulate(quiet, engine()).ttft_p99
    rows = []
    for limit_s in (0.0, 0.020, 0.016, 0.014, 0.0125, 0.010):
        fleet = Fleet(engine(isolation_s=limit_s))
        figures = fleet.run(trace)
        mine = next(tenant for tenant in figures.tenants if tenant.tenant == "quiet")
        service = sum(record.service_then for record in fleet.recorder.tenants.values())
        rows.append(
            {
                "longest step of the loud ms": 1e3 * limit_s if limit_s else "none",
                "TTFT p50 s": mine.ttft_p50,
                "p99 s": mine.ttft_p99,
                "p99 to alone": mine.ttft_p99 / alone,
                "service/s while both ask": service / fleet.recorder.last_arrival,
                "of that without": 0.0,
                "gap p99 ms": 1e3 * figures.itl_p99,
            }
        )
    for row in rows:
        row["of that without"] = row["service/s while both ask"] / rows[0]["service/s while both ask"]
    return rows


# ---------------------------------------------------------------------- a long prompt arrives


def long() -> list[dict[str, Any]]:
    """32 streams decode when a prompt of 32,768 tokens arrives: the largest gap of the streams."""
    streams = [TracedRequest(0.0, token_block(f"stream {n}", 512), 2000, tenant=f"tenant {n % 4}") for n in range(32)]
    trace = [*streams, TracedRequest(8.0, token_block("long", 32_768), 8, tenant="long")]
    rows = []
    for name, changed in (
        ("time budget", {}),
        ("chunks of 2,048 tokens", {"inter_token_s": 0.0, "max_step_tokens": 2048}),
        ("one shot", {"arm": "paged", "max_step_tokens": 65_536}),
    ):
        figures = simulate(trace, engine(**changed))
        long_ttft = next(tenant.ttft_p99 for tenant in figures.tenants if tenant.tenant == "long")
        rows.append(
            {
                "prefill": name,
                "largest gap ms": 1e3 * figures.itl_max,
                "of the aim": figures.itl_max / AIM_S,
                "gap p99 ms": 1e3 * figures.itl_p99,
                "TTFT of the long one s": long_ttft,
            }
        )
    return rows


# ---------------------------------------------------------------------- memory, overlap


def workload(rate: float, requests: int, seed: int = 3) -> Iterator[TracedRequest]:
    """Many tenants, conversations of several turns, lengths of high variance."""
    shape = ChatShape(requests=requests, rate=rate, tenants=32, output_tokens=128.0, output_sigma=1.2, seed=seed)
    return chat(shape)


def waste() -> list[dict[str, Any]]:
    """KV slots of running requests that hold no token, over time, on the multi-tenant workload."""
    rows = []
    for arm in ("shared", "paged", "continuous", "static"):
        figures = simulate(workload(24.0, 3000), engine(arm=arm))
        rows.append(
            {
                "arm": arm,
                "slots without a token": figures.kv_empty,
                "tokens attended to for each slot": figures.kv_reuse,
                "preemptions": figures.preemptions,
                "hit rate": figures.hit_rate,
            }
        )
    return rows


def overlap() -> list[dict[str, Any]]:
    """The host needs 2 ms a step: planned one after another, and one step ahead."""
    rows = []
    for depth in (1, 2):
        figures = simulate(workload(30.0, 3000), replace(engine(), depth=depth, host_s=0.002))
        rows.append(
            {
                "steps in flight": depth,
                "gap p50 ms": 1e3 * figures.itl_p50,
                "gap p99 ms": 1e3 * figures.itl_p99,
                "TTFT p99 s": figures.ttft_p99,
                "output tokens/s": figures.output_per_s,
            }
        )
    return rows


# ---------------------------------------------------------------------- the ladder of the systems before


def ladder() -> list[dict[str, Any]]:
    """The most requests/s that each system serves with the same p99 latency, on outputs of high variance.

    One system prompt of 1,024 tokens for each of 16 tenants, questions of 128 tokens, answers of lognormal length
    (median 128, sigma 1.2, at most 1,024, which is all that the server knows); a pool of 40,960 tokens.
    Latency: from arrival to the last token; the limit is three times what the longest answer takes alone.
    """
    alone = H200_8B.cost.seconds(1, 2048) * 1024
    limit = 3 * alone
    rows = []
    for arm in ("static", "continuous", "paged", "shared"):
        best = highest_rate(lambda rate, arm=arm: ladder_run(arm, rate), limit)
        rows.append(
            {"arm": arm, "requests/s": best[0], "output tokens/s": best[1].output_per_s, **ladder_figures(best[1])}
        )
    for row in rows:
        row["to static"] = row["requests/s"] / rows[0]["requests/s"]
        row["to paged"] = row["requests/s"] / rows[2]["requests/s"]
    print(f"p99 latency limit {limit:.1f} s; the longest answer alone takes {alone:.1f} s")
    return rows


def ladder_run(arm: str, rate: float) -> Figures:
    """100 s of arrivals, at least 1,000 requests."""
    count = max(int(rate * 100) // 16, 63)
    trace = shared_prefixes(16, count, 1024, 128, 128, rate=rate, output_sigma=1.2, max_tokens=1024, seed=7)
    return simulate(trace, engine(arm=arm, pages=40_960 // PAGE))


def ladder_figures(figures: Figures) -> dict[str, Any]:
    """What goes into a row besides the rate."""
    return {
        "latency p99 s": figures.latency_p99,
        "TTFT p99 s": figures.ttft_p99,
        "hit rate": figures.hit_rate,
        "slots without a token": figures.kv_empty,
    }


def highest_rate(run: Callable[[float], Figures], limit: float) -> tuple[float, Figures]:
    """The highest rate, within 3 %, at which p99 latency stays below ``limit``; by bisection."""
    low, high, best = 0.0, 0.5, None
    while (figures := run(high)).latency_p99 <= limit:
        low, high, best = high, high * 2, figures
        if high > 1024:
            break
    if best is None:
        low, best = 0.01, run(0.01)
    while high / low > 1.03:
        rate = (high * low) ** 0.5
        figures = run(rate)
        if figures.latency_p99 <= limit:
            low, best = rate, figures
        else:
            high = rate
    return low, best


SCENARIOS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "cold": cold,
    "fair": fair,
    "isolation": isolation,
    "long": long,
    "waste": waste,
    "overlap": overlap,
    "ladder": ladder,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="|".join(SCENARIOS))
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SCENARIOS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(SCENARIOS)}")
    figures = {}
    python = platform.python_version()
    print(f"simulated: {H200_8B.name}, {H200_8B.kv_tokens:,} tokens of KV, aim {1e3 * AIM_S:g} ms; Python {python}")
    for name in options.names or SCENARIOS:
        print(f"\n{(SCENARIOS[name].__doc__ or '').splitlines()[0]}")
        figures[name] = SCENARIOS[name]()
        show(figures[name])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
