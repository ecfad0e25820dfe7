"""How a step's forward pass is started: operation by operation, or, where every request decodes one token on a GPU, as
one CUDA graph. A graph replays launches with the arguments they were captured with, so its inputs stay in one place and
have one of a few sizes; requests are padded to it with rows that write to the scratch page and attend to nothing.

Knows rows and pages; whose they are is the runner's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from backend.engine.kv_pool import KVPool
from backend.engine.rows import StepRows, place_rows
from backend.models.batch import Batch
from backend.models.decoder import Decoder
from kernels.gpu import on_gpu

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, *range(96, 1025, 32))
"""Rows of captured steps."""

Output = tuple[torch.Tensor, torch.Tensor]
"""What ``Decoder.forward`` returns."""
Capture = Callable[[Callable[[], Output]], Callable[[], Output]]
"""Makes of a step one that can be repeated; its results stand in the same memory each time."""


class Passes(Protocol):
    """A way to run forward passes."""

    def place(self, rows: StepRows) -> Batch:
        """The rows on the device, for ``forward`` before the next ``place``."""

    def forward(self, batch: Batch) -> Output:
        """As ``Decoder.forward``; padding of the batch is padding of the result."""


def passes_for(model: Decoder, pool: KVPool, most_requests: int, pages_per_request: int) -> Passes:
    """Graphs on a CUDA device with Triton, else operation by operation."""
    if model.device.type == "cuda" and on_gpu(pool.storage):
        return DecodeGraphs(model, pool, most_requests, pages_per_request, cuda_graph)
    return Eager(model, pool)


class Eager:
    """Operation by operation."""

    def __init__(self, model: Decoder, pool: KVPool) -> None:
        self._model = model
        self._pool = pool

    def place(self, rows: StepRows) -> Batch:
        """New tensors."""
        return place_rows(rows, self._pool)

    def forward(self, batch: Batch) -> Output:
        """At once."""
        return self._model.forward(batch, self._pool.storage)


@dataclass
class _Step:
    """A batch in fixed memory. ``inputs`` [4, size] int64: tokens, positions, slots, logit rows."""

    batch: Batch
    inputs: torch.Tensor
    replay: Callable[[], Output] | None = None


class DecodeGraphs:
    """Captured steps by size and by the room that their attention's tables have, each made when it is first needed."""

    def __init__(
        self, model: Decoder, pool: KVPool, most_requests: int, pages_per_request: int, capture: Capture
    ) -> None:
        self._eager = Eager(model, pool)
        self._model = model
        self._pool = pool
        self._sizes = [size for size in SIZES if size < most_requests] + [most_requests]
        self._pages = pages_per_request
        self._capture = capture
        self._steps: dict[object, _Step] = {}
        self._placed: _Step | None = None

    def place(self, rows: StepRows) -> Batch:
        """Into the fixed memory of a captured step, if all requests decode."""
        self._placed = None
        requests = len(rows.counts)
        if requests > self._sizes[-1] or int(rows.counts.max()) != 1:
            return self._eager.place(rows)
        from kernels.triton.attention import AttentionPlan
        from kernels.triton.fixed_plan import decode_items, room_for

        size = next(size for size in self._sizes if size >= requests)
        work = decode_items(rows.starts, rows.tables, self._pool.storage, self._pool.heads)
        room = room_for(work, size, self._pages)
        step = self._steps.get(room)
        if step is None:
            step = self._steps[room] = self._make(size, room)
        plan = step.batch.attention
        assert isinstance(plan, AttentionPlan)
        plan.refill(work, rows.starts, rows.tables)
        inputs = np.zeros((4, size), np.int64)
        inputs[2] = self._pool.scratch * self._pool.page_size
        for row, values in zip(inputs, (rows.tokens, rows.positions, rows.slots, rows.logit_rows), strict=True):
            row[: len(values)] = values
        step.inputs.copy_(torch.from_numpy(inputs))
        self._placed = step
        return step.batch

    def forward(self, batch: Batch) -> Output:
        """Replays the step that ``place`` filled; captures it the first time."""
        step = self._placed
        if step is None or step.batch is not batch:
            return self._eager.forward(batch)
        if step.replay is None:
            step.replay = self._capture(lambda: self._model.forward(batch, self._pool.storage))
        return step.replay()

    def _make(self, size: int, room: object) -> _Step:
        from kernels.triton.attention import Capacity
        from kernels.triton.fixed_plan import plan_with_room

        assert isinstance(room, Capacity)
        inputs = torch.zeros(4, size, dtype=torch.int64, device=self._model.device)
        plan = plan_with_room(self._pool.storage, self._pool.heads, room)
        tokens, positions, slots, logit_rows = inputs
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
