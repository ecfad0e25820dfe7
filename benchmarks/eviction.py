"""Hit rates of the eviction policies on request traces, in the real cache. Prints a table; no pass or fail.

    python -m benchmarks.eviction ../shared/traces/mooncake_conversation.jsonl ../shared/traces/mooncake_synthetic.jsonl

Requests come one after another in the trace's order: match, take pages, publish, release; outputs are ignored, as the
traces do not say what they were. One page is one block of the trace (512 tokens; a token stands for 512 of them, the
last block of a prompt for as many as it has). ``flat LRU`` is plain LRU over blocks without a tree; a hole ends a
match.
"""

import argparse
import json
import sys
from array import array
from collections import OrderedDict
from pathlib import Path

import msgspec

from radix.cache import PrefixCache
from radix.policies import DEFAULT, POLICIES

BLOCK = 512
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Line(msgspec.Struct):
    """What is read of a request."""

    input_length: int
    hash_ids: list[int]


def read(path: Path) -> list[Line]:
    """All requests of a Mooncake trace."""
    decode = msgspec.json.Decoder(Line).decode
    return [decode(line) for line in path.read_bytes().splitlines()]


def tokens_of(line: Line, blocks: int) -> int:
    """Prompt tokens in the first ``blocks`` blocks."""
    return min(blocks * BLOCK, line.input_length)


def tree_hits(lines: list[Line], pages: int, policy: str) -> int:
    """Tokens found by the cache with ``pages`` pages."""
    cache = PrefixCache(pages, 1, policy=policy)
    found = 0
    for line in lines:
        lease = cache.acquire(cache.key(array("I", line.hash_ids).tobytes()))
        found += tokens_of(line, lease.cached)
        missing = min(len(line.hash_ids) - len(lease.pages), cache.available)
        cache.extend(lease, missing)
        cache.publish(lease, len(lease.pages))
        cache.release(lease)
    return found


def flat_hits(lines: list[Line], pages: int, deeper_first: bool) -> int:
    """Tokens found by plain LRU over blocks; ``deeper_first``: of one prompt the deeper blocks are evicted first."""
    blocks: OrderedDict[int, None] = OrderedDict()
    found = 0
    for line in lines:
        hit = 0
        while hit < len(line.hash_ids) and line.hash_ids[hit] in blocks:
            hit += 1
        found += tokens_of(line, hit)
        for block in reversed(line.hash_ids) if deeper_first else line.hash_ids:
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > pages:
            blocks.popitem(last=False)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for path in options.traces:
        lines = read(path)
        distinct = len({block for line in lines for block in line.hash_ids})
        total = sum(line.input_length for line in lines)
        bound = tree_hits(lines, distinct, "lru") / total
        print(f"\n{path.name}: {len(lines):,} requests, {distinct:,} blocks; all kept: {bound:.2%} of tokens are hits")
        print(f"{'capacity':22}" + "".join(f"{share:>8.0%}" for share in SHARES))
        rows = {"flat LRU, deeper first": lambda p, lines=lines: flat_hits(lines, p, True)}
        rows["flat LRU, deeper last"] = lambda p, lines=lines: flat_hits(lines, p, False)
        for policy in POLICIES:
            rows[policy] = lambda p, lines=lines, policy=policy: tree_hits(lines, p, policy)
        figures[path.name] = {"all kept": {"1": bound}}
        for name, hits in rows.items():
            rates = {str(share): hits(int(distinct * share)) / total for share in SHARES}
            figures[path.name][name] = rates
            mark = " (default)" if name == DEFAULT else ""
            print(f"{name + mark:22}" + "".join(f"{100 * rate:8.2f}" for rate in rates.values()))
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
