"""Decoders of known shapes with random weights made on the device, and the batches that they run."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from backend.models.batch import Batch
from backend.models.config import ModelConfig, RopeConfig
from backend.models.decoder import Decoder
from benchmarks.gpu.cases import Case, block_tables
from benchmarks.gpu.stage import Bench
from kernels.prefix_runs import prefix_runs
from kernels.triton.attention import make_plan
from kernels.triton.fixed_plan import Scratch, decode_room, plan_with_room, step_items

SIZES = {
    # vocabulary, hidden, intermediate, layers, heads, head_dim, tied, norm of queries and keys; all with 8 KV heads
    "1B": (128256, 2048, 8192, 16, 32, 64, True, False),
    "0.6B": (151936, 1024, 3072, 28, 16, 128, True, True),
    "4B": (151936, 2560, 9728, 36, 32, 128, True, True),
    "8B": (128256, 4096, 14336, 32, 32, 128, False, False),
}
PAGE = 64


def config_of(name: str, bench: Bench, layers: int = 0) -> ModelConfig:
    """Llama-3.2-1B, Qwen3-0.6B and -4B, Llama-3.1-8B; in a dry run tiny ones that differ in the same way."""
    vocab, hidden, intermediate, deep, heads, head_dim, tied, qk_norm = SIZES[name]
    kv_heads = 8
    if bench.gpu.dry:
        vocab, hidden, intermediate, deep, heads, head_dim, kv_heads = 96, 32, 48, 1, heads // 8, 32, 1
    frequencies = 1.0 / (500000.0 ** (np.arange(0, head_dim, 2) / head_dim))
    return ModelConfig(
        architecture="",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers or deep,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=1e-5,
        max_context=1 << 17,
        rope=RopeConfig(tuple(frequencies.tolist())),
        tied_embeddings=tied,
        qk_norm=qk_norm,
        dtype=bench.dtype,
    )


def make_model(config: ModelConfig, bench: Bench) -> tuple[Decoder, int]:
    """Weights of deviation 0.02, norms of 1; the model, and the bytes of weights that a decode step reads."""
    model = Decoder(config, bench.dtype, bench.device)
    for parameter in model.parameters():
        if parameter.target.dim() == 1:
            parameter.target.fill_(1.0)
        else:
            parameter.target.normal_(0, 0.02)
    size = model.prepare()
    if not config.tied_embeddings:  # of the table a step reads a few rows
        size -= config.vocab_size * config.hidden_size * bench.dtype.itemsize
    return model, size


@dataclass(frozen=True)
class Point:
    """A step: ``counts`` new tokens over ``starts``, of which the first ``shared`` are common."""

    name: str
    counts: list[int]
    starts: list[int]
    shared: int = 0

    def small(self, bench: Bench) -> "Point":
        """The same in a dry run."""
        if not bench.gpu.dry:
            return self
        shared = PAGE if self.shared else 0
        starts = [shared + 3 + i for i in range(len(self.starts[:2]))]
        return replace(self, counts=[min(n, 4) for n in self.counts[:2]], starts=starts, shared=shared)

    def case(self) -> Case:
        """For its block tables."""
        levels = ((1, self.shared),) if self.shared else ()
        return Case(self.name, self.counts, self.starts, page_size=PAGE, levels=levels)

    @property
    def keys_read(self) -> int:
        """Keys that must be read: common ones once."""
        return sum(self.starts) + sum(self.counts) - self.shared * (len(self.counts) - 1)


def pages_of(points: list[Point]) -> int:
    """Pages of the largest, and one that belongs to nobody."""
    return max(block_tables(point.case())[1] for point in points) + 1


def make_pool(config: ModelConfig, pages: int, bench: Bench) -> torch.Tensor:
    """Random keys and values, some pages at a time."""
    shape = (pages, config.layers, 2, config.kv_heads, PAGE, config.head_dim)
    pool = torch.empty(shape, dtype=bench.dtype, device=bench.device)
    for part in torch.split(pool, 256):
        part.normal_()
    return pool


def make_batch(
    point: Point, config: ModelConfig, pool: torch.Tensor, bench: Bench, share: bool = True, room: bool = False
) -> Batch:
    """The step's tensors; every request's last token is asked for. ``room``: a decode step's plan as the engine has it
    in a graph, with tables and grids that other steps fit too."""
    tables, _ = block_tables(point.case())
    counts, starts = np.array(point.counts), np.array(point.starts)
    first = counts.cumsum() - counts
    rows = int(counts.sum())
    positions = np.arange(rows) - first.repeat(counts) + starts.repeat(counts)
    request = np.arange(len(counts)).repeat(counts)
    slots = tables[request, positions // PAGE].astype(np.int64) * PAGE + positions % PAGE
    runs = prefix_runs(starts, tables, PAGE) if share else []
    if room:
        work = step_items(counts, starts, tables, pool, config.heads)
        lines = [torch.from_numpy(values.astype(np.int32)).to(bench.device) for values in (starts, tables)]
        capacity = decode_room(work, rows, tables.shape[1])
        plan = plan_with_room(pool, config.heads, rows, capacity, *lines, Scratch(bench.device))
        plan.buffer.copy_(torch.from_numpy(plan.packed(work)))
    else:
        plan = make_plan(counts, starts, tables, pool, config.heads, runs)

    def there(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(bench.device)

    tokens = torch.randint(0, config.vocab_size, (rows,)).to(bench.device)
    return Batch(tokens, there(positions), there(slots), plan, there(first + counts - 1))


def attention_flop(point: Point, config: ModelConfig) -> float:
    """Of all layers."""
    shape: dict[str, Any] = {
        "group": config.heads // config.kv_heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
    }
    return float(replace(point.case(), **shape).flop() * config.layers)


def kv_bytes_per_key(config: ModelConfig, itemsize: int = 2) -> int:
    """Of all layers."""
    return 2 * config.kv_heads * config.head_dim * config.layers * itemsize


def floor_us(point: Point, config: ModelConfig, weights: int, copy: float, matmul: float) -> float:
    """No step is faster: weights and keys are read once, and the products take what they take."""
    rows = sum(point.counts)
    head = config.vocab_size * config.hidden_size
    table = 0 if config.tied_embeddings else head
    dense = 2 * ((config.parameters - head - table) * rows + head * len(point.counts))
    products = max(weights / copy, dense / matmul)
    shared_rows = 4 * config.heads * config.head_dim * config.layers * point.shared * len(point.counts)
    own = point.keys_read - point.shared
    attention = max(point.shared * kv_bytes_per_key(config) / copy, shared_rows / matmul)
    attention += own * kv_bytes_per_key(config) / copy
    if max(point.counts) > 1:
        attention = max(attention, attention_flop(point, config) / matmul)
    return (products + attention) * 1e6 if math.isfinite(products) else math.inf
