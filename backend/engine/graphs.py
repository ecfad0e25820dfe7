"""How a step's forward pass is started: operation by operation, or, where every request decodes one token on a GPU, as
one CUDA graph. A graph replays launches with the arguments they were captured with, so its inputs stay in one place and
have one of a few sizes; requests are padded to it with rows that write to the scratch page and attend to nothing.

Both take the tokens that the step before drew from where they were drawn, so a step can be started before the host
knows them. Knows rows and pages; whose they are is the runner's business.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
from backend.engine.rows import StepRows, fed, place_rows
from backend.engine.staging import Staging
from backend.models.batch import Batch
from backend.models.decoder import Decoder
from kernels.gpu import on_gpu

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, *range(96, 1025, 32))
"""Rows of captured steps."""
STALE = 512
"""A plan of attention is made anew when its requests have grown by so many keys: ranges that were equal still are."""

Output = tuple[torch.Tensor, torch.Tensor]
"""What ``Decoder.forward`` returns."""
Capture = Callable[[Callable[[], Output]], Callable[[], Output]]
"""Makes of a step one that can be repeated; its results stand in the same memory each time."""


class Passes(Protocol):
    """A way to run forward passes. ``last`` [slots] int64 on the device: the token that each slot drew last."""

    last: torch.Tensor

    def place(self, rows: StepRows) -> Batch:
        """The rows on the device, for ``forward`` before the next ``place``."""

    def forward(self, batch: Batch) -> Output:
        """As ``Decoder.forward``; padding of the batch is padding of the result."""


def passes_for(model: Decoder, pool: KVPool, slots: int, pages_per_slot: int) -> Passes:
    """Graphs on a CUDA device with Triton, else operation by operation."""
    if model.device.type == "cuda" and on_gpu(pool.storage):
        return DecodeGraphs(model, pool, slots, pages_per_slot, cuda_graph)
    return Eager(model, pool, slots)


class Eager:
    """Operation by operation."""

    def __init__(self, model: Decoder, pool: KVPool, slots: int) -> None:
        self.last = torch.zeros(slots, dtype=torch.int64, device=model.device)
        self._model = model
        self._pool = pool
        self._staging = Staging(model.device)

    def place(self, rows: StepRows) -> Batch:
        """New tensors."""
        return place_rows(rows, self._pool, self.last, self._staging)

    def forward(self, batch: Batch) -> Output:
        """At once."""
        return self._model.forward(batch, self._pool.storage)


@dataclass
class _Step:
    """A batch in fixed memory. ``inputs`` [5, size] int64: tokens, slots that drew them (-1: none), positions, places
    of keys, logit rows. ``planned``: what its plan of attention was made for."""

    batch: Batch
    inputs: torch.Tensor
    replay: Callable[[], Output] | None = None
    planned: tuple[bytes, bytes] = (b"", b"")


class DecodeGraphs:
    """Captured steps by size and by the room that their attention's tables have, each made when it is first needed.

    Block tables stay on the device, a line for each slot, and only what is new is sent. A plan of attention holds while
    its requests stay the same and have not grown much: its last ranges are open at their ends.
    """

    def __init__(self, model: Decoder, pool: KVPool, slots: int, pages_per_slot: int, capture: Capture) -> None:
        self._eager = Eager(model, pool, slots)
        self.last = self._eager.last
        self._model = model
        self._pool = pool
        self._sizes = [size for size in SIZES if size < slots] + [slots]
        self._capture = capture
        self._steps: dict[object, _Step] = {}
        self._placed: _Step | None = None
        self._staging = Staging(model.device)
        self._tables = torch.zeros(slots, pages_per_slot, dtype=torch.int32, device=model.device)
        self._starts = torch.zeros(slots, dtype=torch.int32, device=model.device)
        self._held = np.zeros(slots, np.int64)  # pages in each line of the tables
        self._versions = np.full(slots, -1, np.int64)  # of the slots when they were sent
        self._newest: tuple[_Step, tuple[bytes, bytes], np.ndarray] | None = None

    def place(self, rows: StepRows) -> Batch:
        """Into the fixed memory of a captured step, if all requests decode."""
        self._placed = None
        requests = len(rows.counts)
        if requests > self._sizes[-1] or int(rows.counts.max()) != 1:
            return self._eager.place(rows)
        self._send_pages(rows)
        starts = np.zeros(len(self._held), np.int32)
        starts[rows.owners] = rows.starts
        self._staging.fill(self._starts, starts)
        step = self._planned(rows)
        size = step.inputs.shape[1]
        inputs = np.zeros((5, size), np.int64)
        inputs[1] = -1
        inputs[3] = self._pool.scratch * self._pool.page_size
        given = (rows.tokens, rows.feed, rows.positions, rows.slots, rows.logit_rows)
        for line, values in zip(inputs, given, strict=True):
            line[: len(values)] = values
        self._staging.fill(step.inputs, inputs)
        self._placed = step
        return step.batch

    def forward(self, batch: Batch) -> Output:
        """Replays the step that ``place`` filled; captures it the first time."""
        step = self._placed
        if step is None or step.batch is not batch:
            return self._eager.forward(batch)
        if step.replay is None:

            def whole() -> Output:
                tokens = fed(batch.tokens, step.inputs[1], self.last)
                return self._model.forward(replace(batch, tokens=tokens), self._pool.storage)

            step.replay = self._capture(whole)
        return step.replay()

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

    def _planned(self, rows: StepRows) -> _Step:
        """The step whose plan of attention is for these rows."""
        key = (rows.owners.tobytes(), rows.versions.tobytes())
        if self._newest is not None:
            step, planned, starts = self._newest
            grown = rows.starts - starts if planned == key == step.planned else np.array([STALE])
            if int(grown.min()) >= 0 and int(grown.max()) < STALE:
                return step
        from kernels.triton.attention import AttentionPlan
        from kernels.triton.fixed_plan import decode_items, room_for

        requests = len(rows.counts)
        size = next(size for size in self._sizes if size >= requests)
        work = decode_items(rows.starts, rows.tables, self._pool.storage, self._pool.heads)
        room = room_for(work, size, self._tables.shape[1])
        if room not in self._steps:
            self._steps[room] = self._make(size, room)
        step = self._steps[room]
        for items in (work.wide, work.narrow):
            items[:, 2] = rows.owners[items[:, 2]]  # whose line of the tables is read
        plan = step.batch.attention
        assert isinstance(plan, AttentionPlan)
        self._staging.fill(plan.buffer, plan.packed(work))
        step.planned = key
        self._newest = (step, key, rows.starts)
        return step

    def _make(self, size: int, room: object) -> _Step:
        from kernels.triton.attention import Capacity
        from kernels.triton.fixed_plan import plan_with_room

        assert isinstance(room, Capacity)
        inputs = torch.zeros(5, size, dtype=torch.int64, device=self._model.device)
        plan = plan_with_room(self._pool.storage, self._pool.heads, room, self._starts, self._tables)
        tokens, _, positions, slots, logit_rows = inputs
        return _Step(Batch(tokens, positions, slots, plan, logit_rows), inputs)


def cuda_graph(step: Callable[[], Output]) -> Callable[[], Output]:
    """Capture ``step``. It runs once before that, which compiles kernels and lets libraries allocate; a step that runs
    twice writes the same keys and values twice."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads (the scheduler's) may go on meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step()

    def replay() -> Output:
        graph.replay()
        return output

    return replay
