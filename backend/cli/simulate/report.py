"""What the runs gave: as a table for people and as a JSON document for programs. Computes nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backend.cli.simulate.grid import Common, Run, Variant
from scheduler.simulate.figures import Figures

_SHOWN_TENANTS = 8


class Report(msgspec.Struct, frozen=True):
    """All that is known about a call of the command."""

    banyan: str
    workload: str
    unit: str
    about: dict[str, Any]
    machine: str
    common: Common
    runs: list[Run]


def to_json(report: Report) -> bytes:
    """The document, indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def labels(variants: Sequence[Variant]) -> list[str]:
    """A name for each variant: what not all of them have in common; of a single one, its arm."""
    names = [name for name in Variant.__struct_fields__ if len({getattr(one, name) for one in variants}) > 1]
    return [", ".join(_word(one, name) for name in names or ["arm"]) for one in variants]


def _word(variant: Variant, name: str) -> str:
    value = getattr(variant, name)
    if name in ("arm", "routing"):
        return value or "one engine"
    return f"depth {value}" if name == "depth" else f"{value:,} {name if value > 1 else name[:-1]}"


def print_report(report: Report, console: Console) -> None:
    """One row a run; with a single run, all of its figures."""
    if len(report.runs) == 1:
        console.print(_single(report, report.runs[0]))
    else:
        console.print(_table(report, console.width))
    console.print(f"predicted for {report.machine}: {_cost(report)}; compares policies, not machines", style="dim")


def _cost(report: Report) -> str:
    cost = report.common.cost
    a, b, c, d = map(_time, (cost.a, cost.b, cost.c, cost.d))
    return f"a step takes {a} + {b} a token + {c} a token read + {d} a pair"


def _time(seconds: float) -> str:
    """In the unit that fits.

    >>> _time(0.0161), _time(3.9e-6), _time(0.0)
    ('16.1 ms', '3.9 us', '0 ns')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _title(report: Report) -> str:
    return f"{report.workload} on {report.machine}"


def _table(report: Report, width: int) -> Table:
    """As many columns as the width has room for, the dearest first; the others are in the JSON."""
    variants = list(dict.fromkeys(run.variant for run in report.runs))
    names = dict(zip(variants, labels(variants), strict=True))
    cells = [["", *(names[run.variant] for run in report.runs)]]
    cells += [[head, *(show(run) for run in report.runs)] for head, _, show in _COLUMNS]
    wide = [max(len(line) for cell in column for line in cell.split("\n")) + 3 for column in cells]
    shown = {0}
    left = width - wide[0]
    for number in sorted(range(1, len(cells)), key=lambda number: _COLUMNS[number - 1][1]):
        if wide[number] > left:
            break
        left -= wide[number]
        shown.add(number)
    table = Table(title=_title(report), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number in sorted(shown):
        table.add_column(cells[number][0], justify="right" if number else "left", no_wrap=True)
    for row, run in enumerate(report.runs, 1):
        last = run is report.runs[-1] or run.variant != report.runs[row].variant
        table.add_row(
            *(cells[number][row] for number in sorted(shown)), end_section=last and len(report.runs) > len(variants)
        )
    return table


# Header, importance (1: shown first), and how it is shown.
_COLUMNS: tuple[tuple[str, int, Callable[[Run], str]], ...] = (
    ("load", 1, lambda run: f"{run.load:g}"),
    ("sent\n/s", 11, lambda run: f"{run.figures.offered_per_s:.2f}" if run.figures.offered_per_s else "at once"),
    ("good\n/s", 2, lambda run: f"{run.figures.goodput_per_s:.2f}"),
    ("good\n%", 3, lambda run: f"{100 * run.figures.attainment:.1f}"),
    ("tokens\n/s", 4, lambda run: f"{run.figures.output_per_s:,.0f}"),
    ("TTFT ms\np50", 8, lambda run: _ms(run.figures.ttft_p50)),
    ("TTFT ms\np99", 5, lambda run: _ms(run.figures.ttft_p99)),
    ("TPOT ms\np99", 7, lambda run: _ms(run.figures.tpot_p99)),
    ("ITL ms\np99", 9, lambda run: _ms(run.figures.itl_p99)),
    ("ms a token\np99", 14, lambda run: _ms(run.figures.latency_per_token_p99)),
    ("hits\n%", 6, lambda run: f"{100 * run.figures.hit_rate:.1f}"),
    ("KV\nempty %", 12, lambda run: f"{100 * run.figures.kv_empty:.1f}"),
    ("KV\nreuse", 13, lambda run: f"{run.figures.kv_reuse:.2f}"),
    ("evicted\npages", 16, lambda run: f"{run.figures.evicted_pages:,}"),
    ("pre-\nempted", 15, lambda run: f"{run.figures.preemptions:,}"),
    ("busy\n%", 10, lambda run: f"{100 * run.figures.busy:.0f}"),
)


def _ms(seconds: float) -> str:
    """Three digits are as much as a prediction is worth."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _single(report: Report, run: Run) -> Table:
    title = f"{_title(report)}, {run.variant.arm}, {run.load:g} {report.unit}"
    table = Table("", title=title, title_justify="left")
    table.add_column("", justify="right")
    for name, value in _all_rows(run.figures).items():
        table.add_row(name, value)
    table.add_section()
    for tenant in run.figures.tenants[:_SHOWN_TENANTS]:
        table.add_row(
            f"{tenant.tenant or 'everybody'}: requests, share of service, TTFT p50 / p99 ms",
            f"{tenant.requests:,}, {tenant.share:.1%}, {_ms(tenant.ttft_p50)} / {_ms(tenant.ttft_p99)}",
        )
    if len(run.figures.tenants) > _SHOWN_TENANTS:
        table.add_row("", f"and {len(run.figures.tenants) - _SHOWN_TENANTS} more tenants")
    if len(run.figures.replicas) > 1:
        table.add_section()
        for number, one in enumerate(run.figures.replicas):
            table.add_row(
                f"replica {number}: requests, hits, busy", f"{one.requests:,}, {one.hit_rate:.1%}, {one.busy:.0%}"
            )
    table.add_section()
    table.add_row(
        "simulated in", f"{run.took_s:,.1f} s, {run.figures.requests / max(run.took_s, 1e-9):,.0f} requests/s"
    )
    return table


def _all_rows(f: Figures) -> dict[str, str]:
    hits, misses = f.hits, f.misses
    return {
        "requests / refused / timed out": f"{f.requests:,} / {f.rejected:,} / {f.expired:,}",
        "seconds": f"{f.seconds:,.1f}",
        "steps": f"{f.steps:,}",
        "sent requests/s": f"{f.offered_per_s:.2f}" if f.offered_per_s else "all at once",
        "goodput requests/s (attainment)": f"{f.goodput_per_s:.2f} ({f.attainment:.1%})",
        "output tokens/s": f"{f.output_per_s:,.1f}",
        "TTFT ms (p50 / p99)": f"{_ms(f.ttft_p50)} / {_ms(f.ttft_p99)}",
        "TPOT ms (p50 / p99)": f"{_ms(f.tpot_p50)} / {_ms(f.tpot_p99)}",
        "ITL ms (p50 / p99 / max)": f"{_ms(f.itl_p50)} / {_ms(f.itl_p99)} / {_ms(f.itl_max)}",
        "latency ms per output token (p50 / p99)": f"{_ms(f.latency_per_token_p50)} / {_ms(f.latency_per_token_p99)}",
        "prompt tokens": f"{f.prompt_tokens:,}",
        "of these cached": f"{hits.total:,} ({f.hit_rate:.1%})",
        "  of system prompts": _share(hits.system, misses.system),
        "  of earlier turns": _share(hits.history, misses.history),
        "  of others": _share(hits.shared, misses.shared),
        "computed tokens / output tokens": f"{f.computed_tokens:,} / {f.output_tokens:,}",
        "preemptions / evicted pages": f"{f.preemptions:,} / {f.evicted_pages:,}",
        "KV slots without a token": f"{f.kv_empty:.1%}",
        "tokens attended to per KV slot": f"{f.kv_reuse:.2f}",
        "rows empty while requests waited": f"{f.idle_rows:.1%}",
        "device busy": f"{f.busy:.1%}",
    }


def _share(hits: int, misses: int) -> str:
    return f"{hits:,} of {hits + misses:,}" + (f" ({hits / (hits + misses):.1%})" if hits + misses else "")
