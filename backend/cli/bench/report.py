"""The result of a benchmark: as a table for people and as a JSON document for programs. Computes nothing."""

import msgspec
from rich.console import Console
from rich.table import Table

from backend.cli.bench.statistics import Distribution, Limits, Observation, Summary
from backend.cli.bench.workload import Shape


class Pass(msgspec.Struct, frozen=True):
    """One time through the workload. ``cold``: the first, its text is new. ``requests`` only when asked for."""

    cold: bool
    summary: Summary
    requests: list[Observation] | None = None


class Result(msgspec.Struct, frozen=True):
    """All that is known about a benchmark. ``started``: ISO 8601, UTC."""

    banyan: str
    started: str
    url: str
    body: dict[str, object]
    shape: Shape
    limits: Limits
    interrupted: bool
    passes: list[Pass]


def to_json(result: Result) -> bytes:
    """The document, indented."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def print_table(result: Result, console: Console) -> None:
    """One column per pass, then the failures by what they were."""
    shape = result.shape
    title = f"{result.url}: {shape.tenants} tenants, {shape.conversations} conversations of {shape.turns} turns"
    table = Table("", title=title, title_justify="left")
    for number, one in enumerate(result.passes, 1):
        table.add_column(f"pass {number} ({'cold' if one.cold else 'warm'})", justify="right")
    columns = [_rows(one.summary, result.limits) for one in result.passes]
    for name in columns[0] if columns else ():
        table.add_row(name, *(column[name] for column in columns))
    console.print(table)
    for one in result.passes:
        for error, count in one.summary.errors.items():
            console.print(f"failed {count} x: {error}", style="red", markup=False, highlight=False)
    if result.interrupted:
        console.print("interrupted: the figures are those of the requests sent until then", style="yellow")


def _rows(summary: Summary, limits: Limits) -> dict[str, str]:
    share = summary.cached_tokens / summary.prompt_tokens if summary.prompt_tokens else 0.0
    rows = {
        "requests sent / ok / failed": f"{summary.sent} / {summary.ok} / {summary.failed}",
        "not sent (after a failed turn)": str(summary.not_sent),
        "shorter than asked": str(summary.short),
        "without usage (frames counted)": str(summary.without_usage),
        "seconds": f"{summary.seconds:,.2f}",
        "prompt tokens": f"{summary.prompt_tokens:,}",
        "of these cached": f"{summary.cached_tokens:,} ({share:.1%})",
        "output tokens": f"{summary.output_tokens:,}",
        "output tokens/s": f"{summary.output_tokens_per_s:,.2f}",
        "prompt + output tokens/s": f"{summary.total_tokens_per_s:,.1f}",
        "requests/s": f"{summary.requests_per_s:,.3f}",
        "TTFT ms (p50 / p95 / p99 / max)": _line(summary.ttft_ms),
        "TPOT ms": _line(summary.tpot_ms),
        "ITL ms": _line(summary.itl_ms),
        "latency ms": _line(summary.latency_ms),
        "tokens per frame": f"{summary.tokens_per_frame:.2f}",
    }
    if limits != Limits():
        rows["goodput requests/s (attainment)"] = f"{summary.goodput_per_s:,.3f} ({summary.attainment:.1%})"
    return rows


def _line(values: Distribution) -> str:
    if not values.count:
        return "-"
    return f"{values.p50:,.0f} / {values.p95:,.0f} / {values.p99:,.0f} / {values.max:,.0f}"
