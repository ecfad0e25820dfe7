#!/usr/bin/env python3
"""Prints the medians in a results folder as one Markdown table: ``table.py RESULTS``. Reads what ``measure.py`` wrote.

Computes nothing but units. Failures and short replies are in the table, so that a row cannot look better than it is.
"""

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = (
    "server",
    "output tokens/s",
    "all runs",
    "TTFT p50 / p95 (s)",
    "gap p50 / p95 / max (ms)",
    "cached prompt tokens",
    "failed / short",
    "peak memory (GB)",
    "start (s)",
    "prefill tokens/s",
    "decode tokens/s at 16 / at 1",
    "burst: tokens/s, TTFT p50 / p95 (s)",
    "varied: tokens/s",
)


def also(folder: Path, name: str, kind: str) -> dict[str, Any]:
    """A run that was made once after the others; empty when it was not."""
    path = folder / f"{name}.{kind}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def rate(run: dict[str, Any], key: str) -> str:
    """A rate, or a dash."""
    return f"{run[key]:,.1f}" if run.get(key) is not None else "-"


def burst(run: dict[str, Any]) -> str:
    """Rate and time to the first token, or a dash."""
    if not run:
        return "-"
    return f"{rate(run, 'out_tok_s')}, {run['ttft_ms']['p50'] / 1000:.2f} / {run['ttft_ms']['p95'] / 1000:.2f}"


def row(folder: Path, median: dict[str, Any]) -> list[str]:
    """One server."""
    name, ttft, gap = median["name"], median["ttft_ms"], median["itl_ms"]
    share = sum(median["cached_tokens"]) / len(median["cached_tokens"]) if None not in median["cached_tokens"] else None
    return [
        name,
        f"{median['out_tok_s']:.1f}",
        ", ".join(f"{value:.1f}" for value in median["out_tok_s_all"]),
        f"{ttft['p50'] / 1000:.2f} / {ttft['p95'] / 1000:.2f}",
        f"{gap['p50']:.0f} / {gap['p95']:.0f} / {gap['max']:,.0f}",
        f"{share:,.0f} of {median['prompt_tokens']:,}" if share is not None else "not told",
        f"{median['failures']} / {median['short']}",
        f"{median['peak_rss_mib'] / 1000:.1f}",
        f"{median['ready_s']:.0f}",
        rate(also(folder, name, "prefill"), "total_tok_s"),
        f"{rate(also(folder, name, 'decode16'), 'out_tok_s')} / {rate(also(folder, name, 'decode1'), 'out_tok_s')}",
        burst(also(folder, name, "burst")),
        rate(also(folder, name, "varied"), "out_tok_s"),
    ]


def main(folder: Path) -> int:
    """The table on standard output; 1 when there are no results."""
    medians = [json.loads(path.read_text()) for path in sorted(folder.glob("*.median.json"))]
    if not medians:
        print(f"{folder} holds no *.median.json", file=sys.stderr)
        return 1
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for median in sorted(medians, key=lambda one: -one["out_tok_s"]):
        print("| " + " | ".join(row(folder, median)) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) == 2 else ".")))
