"""How a step's forward pass is started: operation by operation, or, on a GPU, as one CUDA graph. A graph replays
launches with the arguments they were captured with, so its inputs stay in one place and have one of a few sizes; rows
are padded to it with such that write to the scratch page and attend to nothing.

Both take the tokens that the step before drew from where they were drawn, so a step can be started before the host
knows them. Knows rows and pages; whose they are is the runner's business.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
from backend.engine.rows import StepRows, fed, place_rows
from backend.engine.sampling import Draws, drawn_from
from backend.engine.staging import Staging
from backend.models.batch import Batch
from backend.models.decoder import Decoder
from kernels.gpu import on_gpu
from kernels.rows_finite import rows_finite

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, *range(96, 1025, 32))
"""Rows of captured steps of which each request has one."""
CHUNK_SIZES = tuple(eighths << power for power in range(2, 9) for eighths in range(8, 16))
"""Rows of captured steps with chunks of prompts, up to 3,840: padding is an eighth at most. The products of larger
steps take longer than their launches."""
OUTPUT_SIZES = (4, 16, 64, 256, 1024)
"""Rows of logits of these."""
MOST_STEPS = 512
"""So many captured steps are kept; others are launched operation by operation."""
NOBODY = Draws(*(np.zeros(0, np.int64) for _ in Draws._fields))
STALE = 512
"""A plan of attention is made anew when its requests have grown by so many keys: ranges that were equal still are."""


class Pass(NamedTuple):
    """What a pass gives; of all but ``drawn`` as ``Decoder.forward`` does, with padding where the batch has some."""

    logits: torch.Tensor
    finite: torch.Tensor
    fine: torch.Tensor
    """[outputs] bool: whether the row's logits are finite."""
    drawn: torch.Tensor | None = None
    """[outputs] int64, where ``place`` was given draws and the pass drew. Not to be used where a draw takes more than
    ``Draws`` has."""


Capture = Callable[[Callable[[], Pass]], Callable[[], Pass]]
"""Makes of a step one that can be repeated; its results stand in the same memory each time."""


class Passes(Protocol):
    """A way to run forward passes. ``last`` [slots + 1] int64 on the device: the token that each slot drew last; the
    one behind is nobody's."""

    last: torch.Tensor

    def place(self, rows: StepRows, draws: Draws | None = None) -> Batch:
        """The rows on the device, for ``forward`` before the next ``place``."""

    def forward(self, batch: Batch) -> Pass:
        """Logits and, if it can, the draws of the batch."""


def passes_for(model: Decoder, pool: KVPool, slots: int, pages_per_slot: int) -> Passes:
    """Graphs on a CUDA device with Triton, else operation by operation."""
    if model.device.type == "cuda" and on_gpu(pool.storage):
        return StepGraphs(model, pool, slots, pages_per_slot, cuda_graphs())
    return Eager(model, pool, slots)


class Eager:
    """Operation by operation."""

    def __init__(self, model: Decoder, pool: KVPool, slots: int) -> None:
        self.last = torch.zeros(slots + 1, dtype=torch.int64, device=model.device)
        self._model = model
        self._pool = pool
        self._staging = Staging(model.device)

    def place(self, rows: StepRows, draws: Draws | None = None) -> Batch:
        """New tensors."""
        return place_rows(rows, self._pool, self.last, self._staging)

    def forward(self, batch: Batch) -> Pass:
        """At once; draws nothing."""
        logits, finite = self._model.forward(batch, self._pool.storage)
        return Pass(logits, finite, rows_finite(logits))


@dataclass(frozen=True)
class _Size:
    """Rows and outputs that a captured step has, and whether each request has one of each."""

    rows: int
    outputs: int
    decode: bool


@dataclass
class _Step:
    """A batch in fixed memory. ``inputs`` int64: a line each of tokens, slots that drew them (-1: none), positions and
    places of keys, [4, rows]; [outputs] logit rows; ``Draws.packed`` [5, outputs]. ``planned``: what its plan of
    attention was made for."""

    size: _Size
    batch: Batch
    inputs: torch.Tensor
    feed: torch.Tensor
    draws: torch.Tensor
    runs: int = 0
    replay: Callable[[], Pass] | None = None
    planned: tuple[bytes, bytes] = (b"", b"")


class StepGraphs:
    """Captured steps by size and by the room that their attention's tables have. A step runs operation by operation
    the first time that it is needed, which compiles kernels, and is captured when it comes again.

    Block tables stay on the device, a line for each slot, and only what is new is sent. A decode step's plan of
    attention holds while its requests stay the same and have not grown much: its last ranges are open at their ends.
    """

    def __init__(self, model: Decoder, pool: KVPool, slots: int, pages_per_slot: int, capture: Capture) -> None:
        from kernels.triton.fixed_plan import Scratch

        self._eager = Eager(model, pool, slots)
        self.last = self._eager.last
        self._model = model
        self._pool = pool
        self._sizes = [size for size in SIZES if size < slots] + [slots]
        self._output_sizes = [size for size in OUTPUT_SIZES if size < slots] + [slots]
        self._capture = capture
        self._steps: dict[object, _Step] = {}
        self._placed: _Step | None = None
        self._staging = Staging(model.device)
        self._scratch = Scratch(model.device)
        self._tables = torch.zeros(slots, pages_per_slot, dtype=torch.int32, device=model.device)
        self._starts = torch.zeros(slots, dtype=torch.int32, device=model.device)
        self._held = np.zeros(slots, np.int64)  # pages in each line of the tables
        self._versions = np.full(slots, -1, np.int64)  # of the slots when they were sent
        self._newest: tuple[_Step, tuple[bytes, bytes], np.ndarray] | None = None

    def place(self, rows: StepRows, draws: Draws | None = None) -> Batch:
        """Into the fixed memory of a captured step, if there is one of that size."""
        self._placed = None
        size = self._size(rows)
        if size is None:
            return self._eager.place(rows)
        self._send_pages(rows)
        starts = np.zeros(len(self._held), np.int32)
        starts[rows.owners] = rows.starts
        self._staging.fill(self._starts, starts)
        step = self._planned(rows, size)
        if step is None:
            return self._eager.place(rows)
        lines = np.zeros((4, size.rows), np.int64)
        lines[1] = -1
        lines[3] = self._pool.scratch * self._pool.page_size
        for line, values in zip(lines, (rows.tokens, rows.feed, rows.positions, rows.slots), strict=True):
            line[: len(values)] = values
        logit_rows = np.zeros(size.outputs, np.int64)
        logit_rows[: len(rows.logit_rows)] = rows.logit_rows
        packed = (draws or NOBODY).packed(size.outputs, nobody=len(self._held))
        self._staging.fill(step.inputs, np.concatenate([lines.ravel(), logit_rows, packed.ravel()]))
        self._placed = step
        return step.batch

    def forward(self, batch: Batch) -> Pass:
        """Runs or replays the step that ``place`` filled."""
        step = self._placed
        if step is None or step.batch is not batch:
            return self._eager.forward(batch)
        step.runs += 1
        if step.replay is None:
            whole = self._whole(step)
            if step.runs == 1:
                return whole()
            step.replay = self._capture(whole)
        return step.replay()

    def _whole(self, step: _Step) -> Callable[[], Pass]:
        """From the tokens that the step before drew to those that this one draws."""
        batch, outputs = step.batch, step.size.outputs
        logits = self._scratch.take("logits", outputs, self._model.config.vocab_size)[:outputs]

        def whole() -> Pass:
            tokens = fed(batch.tokens, step.feed, self.last)
            _, finite = self._model.forward(replace(batch, tokens=tokens), self._pool.storage, logits)
            return Pass(logits, finite, rows_finite(logits), drawn_from(logits, step.draws, self.last))

        return whole

    def _size(self, rows: StepRows) -> _Size | None:
        """The smallest that holds the rows."""
        requests, outputs, count = len(rows.counts), len(rows.logit_rows), len(rows.tokens)
        if requests > self._sizes[-1] or outputs > self._output_sizes[-1]:
            return None
        if count == requests and outputs <= count:
            size = next(size for size in self._sizes if size >= requests)
            return _Size(size, size, True)
        if count > CHUNK_SIZES[-1]:
            return None
        return _Size(
            next(size for size in CHUNK_SIZES if size >= count),
            next(size for size in self._output_sizes if size >= outputs),
            False,
        )

    def _send_pages(self, rows: StepRows) -> None:
        """What the device's tables lack of these requests' pages."""
        page_size = self._pool.page_size
        need = (rows.starts + rows.counts + page_size - 1) // page_size
        owners = rows.owners
        known = np.where(self._versions[owners] == rows.versions, self._held[owners], 0)
        behind = np.flatnonzero(known < need)
        if not len(behind):
            return
        counts = (need - known)[behind]
        row = behind.repeat(counts)
        column = np.arange(int(counts.sum())) - (counts.cumsum() - counts).repeat(counts) + known[behind].repeat(counts)
        sent = self._staging.place(np.stack([owners[row], column, rows.tables[row, column]]).astype(np.int64))
        self._tables.index_put_((sent[0], sent[1]), sent[2].int())
        self._held[owners[behind]] = need[behind]
        self._versions[owners[behind]] = rows.versions[behind]

    def _planned(self, rows: StepRows, size: _Size) -> _Step | None:
        """The step whose plan of attention is for these rows; None: there is one too many."""
        key = (rows.owners.tobytes(), rows.versions.tobytes())
        if size.decode and self._newest is not None:
            step, planned, starts = self._newest
            grown = rows.starts - starts if planned == key == step.planned else np.array([STALE])
            if int(grown.min()) >= 0 and int(grown.max()) < STALE:
                return step
        from kernels.triton.attention import AttentionPlan
        from kernels.triton.fixed_plan import chunk_room, decode_room, step_items

        work = step_items(rows.counts, rows.starts, rows.tables, self._pool.storage, self._pool.heads)
        width = self._tables.shape[1]
        room = decode_room(work, size.rows, width) if size.decode else chunk_room(work, width)
        if (size, room) not in self._steps:
            if len(self._steps) >= MOST_STEPS:
                return None
            self._steps[size, room] = self._make(size, room)
        step = self._steps[size, room]
        for items in (work.wide, work.narrow):
            items[:, 2] = rows.owners[items[:, 2]]  # whose line of the tables is read
        plan = step.batch.attention
        assert isinstance(plan, AttentionPlan)
        self._staging.fill(plan.buffer, plan.packed(work))
        step.planned = key if size.decode else (b"", b"")
        self._newest = (step, key, rows.starts) if size.decode else None
        return step

    def _make(self, size: _Size, room: object) -> _Step:
        from kernels.triton.attention import Capacity
        from kernels.triton.fixed_plan import plan_with_room

        assert isinstance(room, Capacity)
        inputs = torch.zeros(4 * size.rows + 6 * size.outputs, dtype=torch.int64, device=self._model.device)
        heads, pool = self._pool.heads, self._pool.storage
        plan = plan_with_room(pool, heads, size.rows, room, self._starts, self._tables, self._scratch)
        lines, logit_rows, draws = torch.split(inputs, [4 * size.rows, size.outputs, 5 * size.outputs])
        tokens, feed, positions, slots = lines.view(4, size.rows)
        batch = Batch(tokens, positions, slots, plan, logit_rows)
        return _Step(size, batch, inputs, feed, draws.view(5, size.outputs))


def cuda_graphs() -> Capture:
    """Captures steps that share the memory of what they compute between their first and last operation: they run one
    after another, and each result is read before the next step begins."""
    memory = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], Pass]) -> Callable[[], Pass]:
        graph = torch.cuda.CUDAGraph()
        # Other threads (the scheduler's) may go on meanwhile.
        with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
            output = step()

        def replay() -> Pass:
            graph.replay()
            return output

        return replay

    return capture
