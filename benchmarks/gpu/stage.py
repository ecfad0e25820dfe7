"""Stages: their names, limits and order, and what each is given."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who only wants the names need not wait for torch
    import torch

    from benchmarks.gpu.device import Gpu
    from benchmarks.gpu.table import Table


@dataclass
class Bench:
    """What a stage works with. ``peers``: a folder with other implementations, or an empty string."""

    gpu: Gpu
    table: Table
    peers: str = ""

    @property
    def device(self) -> torch.device:
        """Where tensors go."""
        return self.gpu.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and pages. The interpreter computes wrongly in bf16."""
        import torch

        return torch.float16 if self.gpu.dry else torch.bfloat16

    def pick(self, full: int, dry: int) -> int:
        """A size."""
        return dry if self.gpu.dry else full


@dataclass(frozen=True)
class Stage:
    """A part of the run. ``where`` is module:function below this package; ``most_s`` its own limit; ``targets`` the ids
    of the rows that it must add."""

    name: str
    where: str
    most_s: float
    targets: tuple[str, ...] = ()

    def run(self, bench: Bench) -> None:
        """Import and call."""
        module, function = self.where.split(":")
        getattr(import_module(f"benchmarks.gpu.{module}"), function)(bench)


STAGES = (
    Stage("ceilings", "ceilings:measure", 30),
    Stage("compile", "compiling:compile_all", 70),
    Stage("check-attention", "correctness:attention", 50, ("T22",)),
    Stage("check-rest", "correctness:rest", 40, ("T22",)),
    Stage("check-model", "correctness:model", 25, ("T22",)),
    Stage("check-engine", "engine:answers", 40, ("T22",)),
    Stage("decode", "attention:decode", 45, ("T1", "T2", "T3", "T4", "T18")),
    Stage("shared", "attention:shared", 40, ("T7", "T8", "T9", "T10")),
    Stage("prefill", "attention:prefill", 40, ("T5", "T6", "T11")),
    Stage("rows", "operations:rows", 25, ("T16",)),
    Stage("copies", "operations:copies", 20, ("T19",)),
    Stage("sampler", "operations:sampler", 25, ("T17",)),
    Stage("moe", "operations:moe", 25, ("T20",)),
    Stage("plan", "plans:host", 10, ("T21",)),
    Stage("steps", "steps:decode", 80, ("T12", "T13", "T14")),
    Stage("prefill-steps", "steps:prefill", 40, ("T15",)),
    Stage("engine", "engine:throughput", 75),
    # In this order, each of its own: one that takes the process with it leaves the others.
    Stage("peers", "peers:kernels", 40),
    Stage("peers-flashinfer", "peers:flashinfer", 30),
    Stage("peers-engines", "peers:engines", 70),
)
NAMES = tuple(stage.name for stage in STAGES)
TOTAL_S = 465.0
