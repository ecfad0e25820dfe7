"""Attention cases: a step's requests, the tree of their prefixes, and the tensors that it takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import Call
from benchmarks.gpu.stage import Bench
from kernels.prefix_runs import prefix_runs
from kernels.reference.paged_attention import paged_attention as reference
from kernels.triton.attention import machine_of, make_plan, paged_attention
from kernels.triton.plan import Machine

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Case:
    """``counts`` new tokens over ``starts`` keys. ``levels``: the tree that the requests are the leaves of, from the
    root: children of each node, and keys that a node adds; ((1, 4096),) is one prefix for all."""

    name: str
    counts: list[int]
    starts: list[int]
    group: int = 4
    kv_heads: int = 8
    head_dim: int = 128
    page_size: int = 64
    dtype: torch.dtype | None = None
    kv_dtype: torch.dtype | None = None
    levels: tuple[tuple[int, int], ...] = ()
    tree: bool = False

    @property
    def keys(self) -> int:
        """Keys of all requests, shared ones counted for each."""
        return sum(self.counts) + sum(self.starts)

    def kv_bytes(self) -> int:
        """Bytes of those keys and their values, with 16-bit activations."""
        itemsize = 1 if self.kv_dtype == FP8 else 4 if self.dtype == torch.float32 else 2
        return 2 * self.keys * self.kv_heads * self.head_dim * itemsize

    def flop(self) -> int:
        """Of causal attention."""
        pairs = sum(n * start + n * (n + 1) // 2 for n, start in zip(self.counts, self.starts, strict=True))
        return 4 * pairs * self.group * self.kv_heads * self.head_dim


def block_tables(case: Case) -> tuple[np.ndarray, int]:
    """Pages [requests, most] int32 in no order, requests in tree order, and how many pages there are."""
    used = -(-(np.array(case.counts) + np.array(case.starts)) // case.page_size)
    paths: list[list[int]] = [[]]
    page = 0
    for children, keys in case.levels:
        below = []
        for path in paths:
            for _ in range(children):
                own = keys // case.page_size
                below.append(path + list(range(page, page + own)))
                page += own
        paths = below
    tables = np.zeros((len(used), int(used.max())), np.int32)
    for at, n in enumerate(used.tolist()):
        path = paths[at * len(paths) // len(used)]
        tables[at, : len(path)] = path
        tables[at, len(path) : n] = np.arange(page, page + n - len(path))
        page += n - len(path)
    return np.random.default_rng(0).permutation(page).astype(np.int32)[tables], page


class Step:
    """A case's tensors on a device."""

    def __init__(
        self,
        case: Case,
        layers: int,
        bench: Bench,
        share: bool = True,
        wide_rows: int = 64,
        machine: Machine | None = None,
        empty: bool = False,
    ) -> None:
        """``share`` False: what requests have in common is read by each. ``empty``: tensors hold anything."""
        self.case, self.layers, device = case, layers, bench.device
        dtype = case.dtype or bench.dtype
        self.counts, self.starts = np.array(case.counts), np.array(case.starts)
        self.tables, pages = block_tables(case)
        shape = (pages, layers, 2, case.kv_heads, case.page_size, case.head_dim)
        kv_dtype = case.kv_dtype or dtype
        self.pool = torch.empty(shape, dtype=kv_dtype, device=device)
        for layer in range(0 if empty else layers):
            self.pool[:, layer] = torch.randn(shape[:1] + shape[2:], device=device).to(kv_dtype)
        self.scales = torch.rand(shape[:4], device=device) + 0.5 if kv_dtype == FP8 else None
        heads = case.group * case.kv_heads
        tokens = int(self.counts.sum())
        self.q = torch.randn(tokens, heads, case.head_dim, device=device).to(dtype)
        self.packed = self.q.view(tokens, case.kv_heads, case.group, case.head_dim).permute(1, 0, 2, 3).contiguous()
        runs = prefix_runs(self.starts, self.tables, case.page_size) if share else []
        # A chain as a tree: each token sees the new ones before it.
        bits = [(2 << i) - 1 if i < 63 else -1 for n in case.counts for i in range(n)]
        chain = torch.tensor(bits) if case.tree else None
        machine = machine or machine_of(self.pool)
        if self.pool.dtype != torch.float32:
            machine = replace(machine, most_wide_rows=wide_rows)
        step = (self.counts, self.starts, self.tables)
        self.plan = make_plan(*step, self.pool, heads, runs, tree_masks=chain, machine=machine)
        self.out = torch.zeros_like(self.q)

    def run(self, layer: int) -> torch.Tensor:
        """One layer, queries packed as the rotation leaves them."""
        return paged_attention(
            self.packed,
            self.pool,
            layer,
            self.plan,
            self.case.head_dim**-0.5,
            out=self.out,
            scales=self.scales,
        )

    def calls(self) -> list[Call]:
        """Each layer once."""

        def of(layer: int) -> Callable[[], Any]:
            return lambda: self.run(layer)

        return [of(layer) for layer in range(self.layers)]

    def error(self) -> tuple[float, bool]:
        """Relative error (L2) of a layer against float64 on the same device, and whether a second run gives the same
        bits. What is not written stays NaN."""
        self.plan.partial.fill_(float("nan"))
        self.out.fill_(float("nan"))
        first = self.run(1).clone()
        again = torch.equal(first, self.run(1))
        pool = self.pool[:, 1:2].double()
        if self.scales is not None:
            pool *= self.scales[:, 1:2, :, :, None, None]
        scale = self.case.head_dim**-0.5
        expected = reference(self.q.double(), pool, 0, self.counts, self.starts, self.tables, scale)
        wrong = (first.double() - expected).norm() / expected.norm()
        return float(wrong), again


def layers_beyond_l2(case: Case, bench: Bench) -> int:
    """So many layers that going through them never finds one in the L2 cache: at least 400 MB, two to eight."""
    return 2 if bench.gpu.dry else max(2, min(8, 400_000_000 // case.kv_bytes() + 1))


def dry(case: Case, bench: Bench) -> Case:
    """The case itself; in a dry run the same shape of tree and batch with a few short requests."""
    if not bench.gpu.dry:
        return case
    few = slice(0, 3)
    longest = max(case.starts)
    levels = tuple((min(children, 2), 64) for children, _ in case.levels[:2])
    floor = 64 * len(levels)
    counts = [min(n, 5) for n in case.counts[few]]
    starts = [floor + min(start, 1 + start * 60 // max(longest, 1)) for start in case.starts[few]]
    small: dict[str, Any] = {
        "counts": counts,
        "starts": starts,
        "kv_heads": 1,
        "levels": levels,
        "page_size": min(case.page_size, 16),
    }
    return replace(case, **small)
