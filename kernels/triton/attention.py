"""Paged attention on GPUs: the plan's tables on the device, and the two launches (wide and narrow tiles) and the merge
that a layer takes. Same mathematics as ``kernels.paged_attention``.

Equal inputs give equal bits: work items do not depend on timing, each item is computed by one program, and partial
results are merged in a fixed order. A token's bits do depend on how its keys were split, hence on the other requests.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.prefix_runs import PrefixRun
from kernels.triton.attention_kernel import attention_kernel
from kernels.triton.merge import merge
from kernels.triton.plan import NARROW_ROWS, Heads, Machine, WorkItems, plan_items

LOG2_E = 1.4426950408889634
_TABLES = ("counts", "wide", "narrow", "merge_tokens", "merge_begin", "merge_slots", "starts", "tables")


@dataclass(frozen=True)
class Config:
    """Keys per tile, warps, stages of the pipeline, whether keys that all rows see have a loop of their own, and the
    most registers per thread."""

    keys: int
    warps: int
    stages: int
    two_loops: bool
    most_registers: int | None = None

    def launch_options(self) -> dict[str, int]:
        """Keyword arguments of the launch."""
        limit = {} if self.most_registers is None else {"maxnreg": self.most_registers}
        return {"num_warps": self.warps, **limit}


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for. ``rows`` is the size of a tile of queries; ``specialised`` splits the warps into
    one that fetches and two groups that multiply."""

    heads: Heads
    rows: int
    page_size: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    scaled: bool = False
    tree: bool = False
    specialised: bool = False
    overlap: bool = False
    copy_engine: bool = True
    """Whether tiles can be fetched by descriptor (TMA, from Hopper on). Triton's interpreter knows descriptors too."""

    @property
    def lanes(self) -> int:
        """head_dim, rounded up to a power of two; the lanes between are neither read nor written."""
        return int(triton.next_power_of_2(self.heads.head_dim))

    def config(self) -> Config:
        """A static table: searching at run time does not work in CUDA graphs. Chosen by the registers and buffers that
        let several programs share a Hopper SM (the compile tests hold the figures), not by measurement yet. A limit on
        registers stands only where nothing is spilled under it."""
        wide = self.rows > NARROW_ROWS
        if self.dtype == torch.float32:
            # Three products of TF32 for one of fp32; for tests and comparisons.
            return Config(keys=16 if wide else 32, warps=8 if wide else 4, stages=2, two_loops=False)
        if self.specialised:
            # The compiler makes it three groups of four warps, and fails on a second loop.
            return Config(keys=64, warps=4, stages=2, two_loops=False)
        plain = self.copy_engine and not self.tree and self.heads.head_dim == self.lanes
        few = None
        if wide:
            # Two programs of 64 lanes share an SM; one of 128 lanes leaves room for a narrow one beside it.
            if self.rows == 128 and plain and (self.page_size % 64 == 0 or self.kv_dtype.itemsize > 1):
                few = 128 if self.lanes <= 64 else 208
            stages = 3 if self.copy_engine else 2
            return Config(keys=64, warps=self.rows // 16, stages=stages, two_loops=True, most_registers=few)
        fp8 = self.kv_dtype.itemsize == 1
        if fp8 and self.rows == 16 and plain:
            few = 128
        # On the way in are 48 KiB in each of four programs at 64 lanes, 64 KiB in each of three at 128.
        stages = 4 if fp8 or self.lanes <= 64 else 3
        return Config(keys=64, warps=4, stages=stages, two_loops=False, most_registers=few)

    @property
    def by_descriptor(self) -> bool:
        """Whether K and V come by the copy engine: a box must not cross a page."""
        return self.copy_engine and self.page_size % self.config().keys == 0

    def constants(self) -> dict[str, object]:
        """Constexpr arguments of ``attention_kernel``."""
        config = self.config()
        return {
            "GROUP": self.heads.group,
            "KV_HEADS": self.heads.kv_heads,
            "PAGE": self.page_size,
            "DIM": self.heads.head_dim,
            "LANES": self.lanes,
            "ROWS": self.rows,
            "KEYS": config.keys,
            "TMA": self.by_descriptor,
            "SCALED": self.scaled,
            "TREE": self.tree,
            "TWO_LOOPS": config.two_loops,
            "PRECISION": "tf32x3" if self.dtype == torch.float32 else "tf32",
            "STAGES": config.stages,
            "SPECIALISED": self.specialised,
            "TRIGGER": self.overlap,
            "WAIT": self.overlap and self.rows <= NARROW_ROWS,
        }


@dataclass(frozen=True)
class Capacity:
    """How much a plan's buffers hold. Fixed ones make a plan usable in a CUDA graph: the grids are then as large as the
    tables, and how many items there are is read on the device. ``wide_rows`` and ``narrow_rows`` are the tiles that are
    compiled: items may be smaller."""

    wide: int
    narrow: int
    merged: int
    slots: int
    requests: int
    table_width: int
    wide_rows: int = 128
    narrow_rows: int = 32

    @classmethod
    def of(cls, work: WorkItems, requests: int, table_width: int) -> "Capacity":
        """Just enough for ``work``."""
        return cls(
            wide=len(work.wide),
            narrow=len(work.narrow),
            merged=len(work.merge_tokens),
            slots=work.slots,
            requests=max(1, requests),
            table_width=max(1, table_width),
            wide_rows=work.wide_rows,
            narrow_rows=work.narrow_rows,
        )

    def parts(self) -> dict[str, int]:
        """Number of int32 of each table in the plan's buffer; each begins at a multiple of 16 bytes."""
        sizes = (
            4,
            self.wide * 8,
            self.narrow * 8,
            self.merged,
            self.merged + 1,
            max(1, self.slots),
            self.requests,
            self.requests * self.table_width,
        )
        return {name: -(-size // 4) * 4 for name, size in zip(_TABLES, sizes, strict=True)}


@dataclass
class AttentionPlan:
    """One step's attention on the device. Made by ``make_plan``; ``refill`` puts the next step into the same memory."""

    heads: Heads
    capacity: Capacity
    buffer: torch.Tensor
    """All tables, int32, one after another."""
    tables: dict[str, torch.Tensor]
    """Views of ``buffer``. ``counts`` are the numbers of wide items, narrow items and merged tokens."""
    partial: torch.Tensor
    """[slots, heads, head_dim] fp32"""
    partial_lse: torch.Tensor
    """[slots, heads] fp32"""
    tree_masks: torch.Tensor | None = None
    """[tokens] int64: bit i is 1 where a token sees its request's i-th new key. Keys before the new ones are visible,
    keys behind the token's own never. A request has at most 64 new tokens then."""

    def refill(
        self, work: WorkItems, starts: np.ndarray, block_tables: np.ndarray, tree_masks: torch.Tensor | None = None
    ) -> None:
        """Put another step into this plan's memory. Raises ValueError where it does not fit."""
        need = Capacity.of(work, *block_tables.shape)
        if any(getattr(need, name) > getattr(self.capacity, name) for name in vars(need)):
            raise ValueError(f"a step of {need} in a plan for {self.capacity}")
        if (tree_masks is None) != (self.tree_masks is None):
            raise ValueError("draft trees in a plan without, or none in a plan with them")
        self.buffer.copy_(_packed(self.capacity, work, starts, block_tables))
        if tree_masks is not None and self.tree_masks is not None:
            if len(tree_masks) > len(self.tree_masks):
                raise ValueError(f"{len(tree_masks)} masks in a plan for {len(self.tree_masks)}")
            self.tree_masks[: len(tree_masks)].copy_(tree_masks)


@cache
def machine_of(device: torch.device) -> Machine:
    """What the plan has to know of ``device``: an H200 with that GPU's number of SMs."""
    if device.type != "cuda":
        return Machine()
    return Machine(sms=torch.cuda.get_device_properties(device).multi_processor_count)


def _packed(capacity: Capacity, work: WorkItems, starts: np.ndarray, block_tables: np.ndarray) -> torch.Tensor:
    """The plan's buffer, on the host."""
    values = {
        "counts": np.array([len(work.wide), len(work.narrow), len(work.merge_tokens), 0], np.int32),
        "wide": work.wide.ravel(),
        "narrow": work.narrow.ravel(),
        "merge_tokens": work.merge_tokens,
        "merge_begin": work.merge_begin,
        "merge_slots": work.merge_slots,
        "starts": np.asarray(starts, np.int32),
    }
    parts = capacity.parts()
    packed = np.zeros(sum(parts.values()), np.int32)
    at = 0
    for name, size in parts.items():
        if name == "tables":
            rows, width = block_tables.shape
            table = packed[at : at + capacity.requests * capacity.table_width]
            table.reshape(capacity.requests, capacity.table_width)[:rows, :width] = block_tables
        else:
            packed[at : at + len(values[name])] = values[name]
        at += size
    return torch.from_numpy(packed)


def make_plan(
    counts: np.ndarray,
    starts: np.ndarray,
    block_tables: np.ndarray,
    pool: torch.Tensor,
    heads: int,
    runs: list[PrefixRun] | None = None,
    *,
    tree_masks: torch.Tensor | None = None,
    capacity: Capacity | None = None,
    machine: Machine | None = None,
) -> AttentionPlan:
    """Describe one step's attention and allocate what it needs. One copy to the device.

    counts, starts, block_tables, pool  as in ``kernels.paged_attention.plan_attention``, requests in tree order
    heads                               query heads
    runs                                keys that requests share; they are read once where that pays
    tree_masks                          see ``AttentionPlan``; None: every token sees all keys up to its own
    capacity                            sizes of the buffers; None: just enough for this step
    machine                             what the cost model assumes; None: the pool's device
    """
    if heads % pool.shape[3]:
        raise ValueError(f"{heads} heads over {pool.shape[3]} KV heads")
    if tree_masks is not None and int(np.max(counts, initial=0)) > 64:
        raise ValueError(f"a draft tree of {int(np.max(counts))} tokens")
    shape = Heads(heads // pool.shape[3], pool.shape[3], pool.shape[5], pool.element_size())
    work = plan_items(counts, starts, runs or [], shape, machine or machine_of(pool.device))
    capacity = capacity or Capacity.of(work, *block_tables.shape)
    parts = capacity.parts()
    buffer = torch.empty(sum(parts.values()), dtype=torch.int32, device=pool.device)
    plan = AttentionPlan(
        heads=shape,
        capacity=capacity,
        buffer=buffer,
        tables=dict(zip(parts, torch.split(buffer, list(parts.values())), strict=True)),
        partial=torch.empty(max(1, capacity.slots), heads, pool.shape[5], dtype=torch.float32, device=pool.device),
        partial_lse=torch.empty(max(1, capacity.slots), heads, dtype=torch.float32, device=pool.device),
        tree_masks=None if tree_masks is None else torch.empty_like(tree_masks, device=pool.device),
    )
    plan.refill(work, starts, block_tables, tree_masks)
    return plan


def paged_attention(
    q: torch.Tensor,
    pool: torch.Tensor,
    layer: int,
    plan: AttentionPlan,
    scale: float,
    *,
    out: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    specialised: bool = False,
    overlap: bool = False,
) -> torch.Tensor:
    """Softmax attention of one layer over paged keys.

    q            [tokens, heads, head_dim], or packed [kv_heads, tokens, group, head_dim], as the rotation writes it;
                 any strides with a contiguous last dimension
    pool         [pages, layers, 2, kv_heads, page_size, head_dim], contiguous, in the dtype of q or fp8 e4m3; every
                 value in it must be finite, also where no key was written yet
    scale        factor on the scores
    out          [tokens, heads, head_dim] to write into; rows of no request are left alone. None: a new one, 0 there
    scales       [pages, layers, 2, kv_heads] fp32, contiguous: what the pool's values are multiplied by
    specialised  compute tiles of 128 rows with specialised warps. Needs q packed and contiguous in 16 bits, a pool in
                 the same dtype, pages of 64 keys or a multiple, no draft trees and a Hopper GPU

    overlap      let the narrow tiles start while wide ones still run, and the merge while narrow ones do (programmatic
                 dependent launch; Hopper). The next kernel of the stream still waits for all of them

    Returns ``out``. Partial results are in memory that belongs to the plan: layers run one after another.
    """
    shape = plan.heads
    packed = q.dim() == 4
    if out is None:
        tokens = q.shape[1] if packed else q.shape[0]
        out = torch.zeros(tokens, shape.group * shape.kv_heads, shape.head_dim, dtype=q.dtype, device=q.device)
    counts = plan.tables["counts"]
    variant = Variant(
        shape,
        plan.capacity.narrow_rows,
        pool.shape[4],
        q.dtype,
        pool.dtype,
        scaled=scales is not None,
        tree=plan.tree_masks is not None,
        overlap=overlap,
        copy_engine=pool.device.type != "cuda" or torch.cuda.get_device_capability(pool.device) >= (9, 0),
    )
    if plan.capacity.wide:
        wide = replace(
            variant, rows=plan.capacity.wide_rows, specialised=specialised and plan.capacity.wide_rows == 128
        )
        if wide.specialised and not (
            packed and q.is_contiguous() and q.dtype.itemsize == 2 and pool.dtype == q.dtype and wide.by_descriptor
        ):
            raise ValueError("specialised warps need packed queries and a pool in 16 bits, with pages of 64 keys")
        if wide.specialised and wide.tree:
            raise ValueError("specialised warps do not know draft trees")
        _launch(wide, q, pool, layer, plan, scale, out, scales, plan.tables["wide"], counts, plan.capacity.wide)
    if plan.capacity.narrow:
        table = plan.tables["narrow"]
        early = overlap and plan.capacity.wide > 0
        _launch(variant, q, pool, layer, plan, scale, out, scales, table, counts[1:], plan.capacity.narrow, early)
    merge(
        plan.partial,
        plan.partial_lse,
        out,
        plan.tables["merge_tokens"],
        plan.tables["merge_begin"],
        plan.tables["merge_slots"],
        counts[2:],
        plan.capacity.merged,
        overlap,
    )
    return out


def _launch(
    variant: Variant,
    q: torch.Tensor,
    pool: torch.Tensor,
    layer: int,
    plan: AttentionPlan,
    scale: float,
    out: torch.Tensor,
    scales: torch.Tensor | None,
    items: torch.Tensor,
    n_items: torch.Tensor,
    most: int,
    early: bool = False,
) -> None:
    """Start ``attention_kernel`` on one table of at most ``most`` items, ``early`` if the kernel before triggers it."""
    config, heads, lanes = variant.config(), variant.heads, variant.lanes
    dim = heads.head_dim
    # Strides of q by token, KV head and head of a group.
    if variant.specialised:
        strides = (heads.group, q.shape[1] * heads.group, 1)
        q = TensorDescriptor(q, [q.numel() // dim, dim], [dim, 1], [variant.rows, lanes])
    elif q.dim() == 4:
        strides = (q.stride(1), q.stride(0), q.stride(2))
    else:
        strides = (q.stride(0), q.stride(1) * heads.group, q.stride(1))
    box = pool_at = None
    if variant.by_descriptor:
        box = TensorDescriptor(pool, [pool.numel() // dim, dim], [dim, 1], [config.keys, lanes])
    else:
        pool_at = pool
    attention_kernel[(most * heads.kv_heads,)](
        q,
        box,
        pool_at,
        scales,
        out,
        plan.partial,
        plan.partial_lse,
        items,
        n_items,
        plan.tables["starts"],
        plan.tables["tables"],
        plan.tree_masks,
        layer,
        pool.shape[1],
        plan.capacity.table_width,
        scale * LOG2_E,
        *strides,
        out.stride(0),
        out.stride(1),
        **variant.constants(),
        **config.launch_options(),
        **({"launch_pdl": True} if early else {}),
    )
