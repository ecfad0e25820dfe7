"""Goodput and p99 TTFT against load, one line a variant, as SVG or PNG. matplotlib is imported when it is drawn.

With a single load and several sizes of KV memory everything is drawn against pages, and the hit rate with it: the
picture of a plan for a fleet.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from backend.cli.simulate.grid import Run, Variant
from backend.cli.simulate.report import Report, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
# Okabe and Ito's palette, told apart by colour-blind people too, without its yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*"
_GREY = "#999999"


class _Across(NamedTuple):
    """The horizontal axis: its label, where a run stands on it, and which runs are on one line."""

    label: str
    place: Callable[[Run], float]
    line: Callable[[Run], Variant]


def draw(report: Report, path: Path) -> None:
    """Write the picture; the suffix decides the format."""
    figure_of(report).savefig(path, dpi=150)


def figure_of(report: Report) -> "Figure":
    """Panels over the same horizontal axis."""
    from matplotlib.figure import Figure

    by_pages = _by_pages(report.runs)
    across = _pages() if by_pages else _load(report.unit)
    figure = Figure(figsize=(14.0 if by_pages else 10.5, 4.4), layout="constrained")
    goodput, ttft, *more = figure.subplots(1, 3 if by_pages else 2)
    _sent(goodput, report.runs, across)
    _lines(goodput, report.runs, across, lambda run: run.figures.goodput_per_s)
    _lines(ttft, report.runs, across, lambda run: max(run.figures.ttft_p99, 1e-6))
    _frame(goodput, report.runs, across, "goodput (requests/s)")
    _frame(ttft, report.runs, across, "p99 time to first token (s)")
    goodput.set_ylim(bottom=0)
    ttft.set_yscale("log")
    ttft.yaxis.set_major_formatter("{x:g}")
    _limit(ttft, report.common.limits.ttft_s)
    for hits in more:
        _lines(hits, report.runs, across, lambda run: 100 * run.figures.hit_rate)
        _frame(hits, report.runs, across, "prompt tokens from the cache (%)")
        hits.set_ylim(0, 100)
    handles, names = goodput.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False, fontsize=9)
    figure.suptitle(_title(report, by_pages), fontsize=11)
    return figure


def _by_pages(runs: Sequence[Run]) -> bool:
    return len({run.load for run in runs}) == 1 < len({run.variant.pages for run in runs})


def _load(unit: str) -> _Across:
    return _Across(f"load ({unit})", lambda run: run.load, lambda run: run.variant)


def _pages() -> _Across:
    return _Across(
        "KV pages of each engine",
        lambda run: run.variant.pages,
        lambda run: msgspec.structs.replace(run.variant, pages=0),
    )


def _lines(axes: "Axes", runs: Sequence[Run], across: _Across, value: Callable[[Run], float]) -> None:
    lines = list(dict.fromkeys(across.line(run) for run in runs))
    for line, name, style in zip(lines, labels(lines), styles(lines), strict=True):
        mine = sorted((run for run in runs if across.line(run) == line), key=across.place)
        axes.plot(
            [across.place(run) for run in mine],
            [value(run) for run in mine],
            label=name,
            markersize=5,
            linewidth=1.8,
            **style,
        )


def styles(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Of each line. What differs most often is told by colour and marker, all else by the kind of line."""
    values = {name: list(dict.fromkeys(getattr(one, name) for one in variants)) for name in Variant.__struct_fields__}
    main = max(values, key=lambda name: len(values[name]))
    rest = list(dict.fromkeys(_without(one, main) for one in variants))
    found = []
    for one in variants:
        color, line = values[main].index(getattr(one, main)), rest.index(_without(one, main))
        found.append(
            {
                "color": _COLORS[color % len(_COLORS)],
                "marker": _MARKERS[color % len(_MARKERS)],
                "linestyle": _LINES[line % len(_LINES)],
                "markerfacecolor": _COLORS[color % len(_COLORS)] if line == 0 else "white",
            }
        )
    return found


def _without(variant: Variant, name: str) -> Variant:
    return msgspec.structs.replace(variant, **{name: None})


def _sent(axes: "Axes", runs: Sequence[Run], across: _Across) -> None:
    """What was sent: no server can have more goodput."""
    sent = {across.place(run): run.figures.offered_per_s for run in runs if run.figures.offered_per_s}
    if len(sent) > 1:
        places = sorted(sent)
        axes.plot(
            places, [sent[place] for place in places], color=_GREY, linewidth=1, linestyle=(0, (4, 3)), label="sent"
        )


def _frame(axes: "Axes", runs: Sequence[Run], across: _Across, what: str) -> None:
    places = sorted({across.place(run) for run in runs})
    if places[0] > 0 and places[-1] >= 4 * places[0]:
        axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{place:,g}" if place < 1e6 else f"{place:.3g}" for place in places])
    axes.minorticks_off()
    axes.set_xlabel(across.label)
    axes.set_ylabel(what)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _limit(axes: "Axes", limit_s: float) -> None:
    if limit_s == float("inf"):
        return
    axes.axhline(limit_s, color=_GREY, linewidth=1, linestyle=(0, (1, 2)))
    at = (1, limit_s)
    axes.annotate("limit", at, xycoords=("axes fraction", "data"), ha="right", va="bottom", color="#666666", fontsize=8)


def _title(report: Report, by_pages: bool) -> str:
    limits = report.common.limits
    kept = [
        f"{name} {1000 * value:g} ms"
        for name, value in (("TTFT", limits.ttft_s), ("TPOT", limits.tpot_s), ("ITL p99", limits.itl_s))
        if value < float("inf")
    ]
    load = f", {report.runs[0].load:g} {report.unit}" if by_pages else ""
    good = f"; good: {', '.join(kept)}" if kept else ""
    return f"{report.workload} on {report.machine}{load}{good}"
