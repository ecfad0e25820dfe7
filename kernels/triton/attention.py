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
from kernels.triton import early
from kernels.triton.attention_kernel import attention_kernel
from kernels.triton.merge import merge
from kernels.triton.plan import NARROW_ROWS, Heads, Machine, WorkItems, plan_items

LOG2_E = 1.4426950408889634
_TABLES = ("counts", "wide", "narrow", "merge_tokens", "merge_begin", "merge_slots", "starts", "tables")


@dataclass(frozen=True)
class Config:
    """Keys per tile, warps, stages of the pipeline, and whether keys that all rows see have a loop of their own."""

    keys: int
    warps: int
    stages: int
    two_loops: bool


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for. ``rows`` is the size of a tile of queries; ``early`` and ``beside`` as in the
    kernel."""

    heads: Heads
    rows: int
    page_size: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    scaled: bool = False
    tree: bool = False
    early: bool = False
    beside: bool = False
    copy_engine: bool = True
    """Whether tiles can be fetched by descriptor (TMA, from Hopper on). Triton's interpreter knows descriptors too."""

    @property
    def lanes(self) -> int:
        """head_dim, rounded up to a power of two; the lanes between are neither read nor written."""
        return int(triton.next_power_of_2(self.heads.head_dim))

    def config(self) -> Config:
        """A static table: searching at run time does not work in CUDA graphs. Measured on an H200 (docs/log.md)."""
        wide = self.rows > NARROW_ROWS
        if self.dtype == torch.float32:
            # Three products of TF32 for one of fp32; for tests and comparisons.
            return Config(keys=16 if wide else 32, warps=8 if wide else 4, stages=2, two_loops=False)
        if wide:
            stages = 3 if self.copy_engine else 2
            return Config(keys=64, warps=self.rows // 16, stages=stages, two_loops=True)
        # Two warps suffice for 16 rows; on the way in are 96 KiB (128 lanes) in each of two programs on an SM. Beside
        # wide tiles, which take their own part of the shared memory, less.
        few = self.rows == 16 and self.copy_engine
        stages = 4 if (few and not self.beside) or self.kv_dtype.itemsize == 1 or self.lanes <= 64 else 3
        return Config(keys=64, warps=2 if few else 4, stages=stages, two_loops=False)

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
            "KV_BITS": 8 * self.kv_dtype.itemsize,
            "SCALED": self.scaled,
            "TREE": self.tree,
            "TWO_LOOPS": config.two_loops,
            "PRECISION": "tf32x3" if self.dtype == torch.float32 else "tf32",
            "STAGES": config.stages,
            "EARLY": self.early,
            "BESIDE": self.beside,
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
    wide_rows: int = 64
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

    _output: torch.Tensor | None = None

    def into(self, output: torch.Tensor) -> "AttentionPlan":
        """Results go into ``output`` [tokens, heads, head_dim], finite everywhere, as long as that is large enough."""
        self._output = output
        return self

    def output(self, tokens: int, dtype: torch.dtype) -> torch.Tensor:
        """[tokens, heads, head_dim] that belongs to the plan: made once, since filling it costs a launch."""
        heads = self.heads.group * self.heads.kv_heads
        if self._output is None or self._output.dtype != dtype or len(self._output) < tokens:
            shape = (tokens, heads, self.heads.head_dim)
            self._output = torch.zeros(shape, dtype=dtype, device=self.buffer.device)
        return self._output[:tokens]

    def packed(self, work: WorkItems, starts: np.ndarray | None = None, tables: np.ndarray | None = None) -> np.ndarray:
        """What the buffer must hold for ``work``, on the host; starts and block tables where they are the plan's."""
        values = {
            "counts": np.array([len(work.wide), len(work.narrow), len(work.merge_tokens), 0], np.int32),
            "wide": work.wide.ravel(),
            "narrow": work.narrow.ravel(),
            "merge_tokens": work.merge_tokens,
            "merge_begin": work.merge_begin,
            "merge_slots": work.merge_slots,
            "starts": np.zeros(0, np.int32) if starts is None else np.asarray(starts, np.int32),
        }
        capacity, parts = self.capacity, self.capacity.parts()
        packed = np.zeros(sum(parts.values()), np.int32)
        at = 0
        for name, size in parts.items():
            if name == "tables":
                table = packed[at : at + capacity.requests * capacity.table_width]
                if tables is not None:
                    rows, width = tables.shape
                    table.reshape(capacity.requests, capacity.table_width)[:rows, :width] = tables
            else:
                packed[at : at + len(values[name])] = values[name]
            at += size
        return packed

    def refill(
        self, work: WorkItems, starts: np.ndarray, block_tables: np.ndarray, tree_masks: torch.Tensor | None = None
    ) -> None:
        """Put another step into this plan's memory. Raises ValueError where it does not fit."""
        need = Capacity.of(work, *block_tables.shape)
        if any(getattr(need, name) > getattr(self.capacity, name) for name in vars(need)):
            raise ValueError(f"a step of {need} in a plan for {self.capacity}")
        if (tree_masks is None) != (self.tree_masks is None):
            raise ValueError("draft trees in a plan without, or none in a plan with them")
        self.buffer.copy_(torch.from_numpy(self.packed(work, starts, block_tables)))
        if tree_masks is not None and self.tree_masks is not None:
            if len(tree_masks) > len(self.tree_masks):
                raise ValueError(f"{len(tree_masks)} masks in a plan for {len(self.tree_masks)}")
            self.tree_masks[: len(tree_masks)].copy_(tree_masks)


def machine_of(pool: torch.Tensor) -> Machine:
    """What the plan has to know of the pool's device: an H200 with that GPU's number of SMs."""
    return _machine(pool.device, pool.dtype)


@cache
def _machine(device: torch.device, dtype: torch.dtype) -> Machine:
    if device.type != "cuda":
        return Machine()
    machine = Machine(sms=torch.cuda.get_device_properties(device).multi_processor_count)
    # In float32 the compiler gets wide tiles wrong: they read past shared memory (docs/log.md).
    return replace(machine, most_wide_rows=NARROW_ROWS) if dtype == torch.float32 else machine


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
    partials: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> AttentionPlan:
    """Describe one step's attention and allocate what it needs. One copy to the device.

    counts, starts, block_tables, pool  as in ``kernels.paged_attention.plan_attention``, requests in tree order
    heads                               query heads
    runs                                keys that requests share; they are read once where that pays
    tree_masks                          see ``AttentionPlan``; None: every token sees all keys up to its own
    capacity                            sizes of the buffers; None: just enough for this step
    machine                             what the cost model assumes; None: the pool's device
    partials                            memory for partial results and their log-sum-exps; None: allocated
    """
    if heads % pool.shape[3]:
        raise ValueError(f"{heads} heads over {pool.shape[3]} KV heads")
    if tree_masks is not None and int(np.max(counts, initial=0)) > 64:
        raise ValueError(f"a draft tree of {int(np.max(counts))} tokens")
    shape = Heads(heads // pool.shape[3], pool.shape[3], pool.shape[5], pool.element_size())
    work = plan_items(counts, starts, runs or [], shape, machine or machine_of(pool))
    capacity = capacity or Capacity.of(work, *block_tables.shape)
    parts = capacity.parts()
    buffer = torch.empty(sum(parts.values()), dtype=torch.int32, device=pool.device)
    if partials is None:
        slots = max(1, capacity.slots)
        partial = torch.empty(slots, heads, pool.shape[5], dtype=torch.float32, device=pool.device)
        partials = partial, partial.new_empty(slots, heads)
    plan = AttentionPlan(
        heads=shape,
        capacity=capacity,
        buffer=buffer,
        tables=dict(zip(parts, torch.split(buffer, list(parts.values())), strict=True)),
        partial=partials[0],
        partial_lse=partials[1],
        tree_masks=None if tree_masks is None else torch.empty_like(tree_masks, device=pool.device),
    )
    if len(counts) or capacity.requests:
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
) -> torch.Tensor:
    """Softmax attention of one layer over paged keys.

    q            [tokens, heads, head_dim], or packed [kv_heads, tokens, group, head_dim], as the rotation writes it;
                 any strides with a contiguous last dimension
    pool         [pages, layers, 2, kv_heads, page_size, head_dim], contiguous, in the dtype of q or fp8 e4m3; every
                 value in it must be finite, also where no key was written yet
    scale        factor on the scores
    out          [tokens, heads, head_dim] to write into; rows of no request are left alone. None: the plan's own,
                 which the next call writes again, with finite values there
    scales       [pages, layers, 2, kv_heads] fp32, contiguous: what the pool's values are multiplied by

    Returns ``out``. Partial results are in memory that belongs to the plan: layers run one after another.
    """
    shape = plan.heads
    packed = q.dim() == 4
    if out is None:
        out = plan.output(q.shape[1] if packed else q.shape[0], q.dtype)
    counts, tables = plan.tables["counts"], plan.tables
    narrow = Variant(
        shape,
        plan.capacity.narrow_rows,
        pool.shape[4],
        q.dtype,
        pool.dtype,
        scaled=scales is not None,
        tree=plan.tree_masks is not None,
        early=early.may(q),
        beside=plan.capacity.wide > 0,
        copy_engine=pool.device.type != "cuda" or early.may(pool),
    )
    common = (q, pool, layer, plan, scale, out, scales)
    if plan.capacity.wide:
        wide = replace(narrow, rows=plan.capacity.wide_rows, beside=False)
        _launch(wide, *common, tables["wide"], counts, plan.capacity.wide)
    if plan.capacity.narrow:
        _launch(narrow, *common, tables["narrow"], counts[1:], plan.capacity.narrow)
    merged = (tables["merge_tokens"], tables["merge_begin"], tables["merge_slots"], counts[2:], plan.capacity.merged)
    merge(plan.partial, plan.partial_lse, out, *merged)
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
) -> None:
    """Start ``attention_kernel`` on one table of at most ``most`` items."""
    config, heads, lanes = variant.config(), variant.heads, variant.lanes
    dim = heads.head_dim
    # Strides of q by token, KV head and head of a group.
    if q.dim() == 4:
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
        num_warps=config.warps,
        **({"launch_pdl": True} if variant.early else {}),
    )
