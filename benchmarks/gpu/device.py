"""What the stages ask of a device: times, graphs, pinned memory. On a CPU (the dry run) each has a stand-in that goes
through the same code, so that only the figures are meaningless there."""

import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

Call = Callable[[], Any]


@dataclass(frozen=True)
class Took:
    """Median time of a call, and (largest - smallest) / median without the outer tenths."""

    us: float
    spread: float

    @classmethod
    def of(cls, times_us: list[float]) -> "Took":
        """From single times."""
        ordered = sorted(times_us)
        cut = len(ordered) // 10
        kept = ordered[cut : len(ordered) - cut]
        median = statistics.median(ordered)
        return cls(median, (kept[-1] - kept[0]) / median if median else 0.0)


class Gpu:
    """A CUDA device."""

    dry = False
    name = "cuda"

    def __init__(self) -> None:
        self.device = torch.device("cuda")

    def synchronize(self) -> None:
        """Wait for everything; raises if a kernel failed."""
        torch.cuda.synchronize()

    def warm_up(self, seconds: float) -> None:
        """Raise the clocks."""
        x = torch.randn(4096, 4096, device=self.device, dtype=torch.bfloat16)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(20):
                torch.mm(x, x)
            self.synchronize()

    def capture(self, call: Call) -> Call:
        """A graph of what ``call`` launches; calling it replays."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def timed(self, calls: list[Call], replays: int = 20) -> Took:
        """Time of one of ``calls``, which one graph holds in turn; they should go over more memory than the L2 has."""

        def all_calls() -> None:
            for call in calls:
                call()

        replay = self.capture(all_calls)
        took = self.timed_eagerly(replay, replays, warm=5)
        return Took(took.us / len(calls), took.spread)

    def timed_eagerly(self, call: Call, repeats: int = 10, warm: int = 2) -> Took:
        """Time of a call as it is, gaps of the host included."""
        for _ in range(warm):
            call()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        self.synchronize()
        return Took.of([before.elapsed_time(after) * 1000 for before, after in pairwise(marks)])

    def pinned(self, size: int) -> torch.Tensor:
        """``size`` bytes of host memory that the copy engine reaches."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def free_bytes(self) -> int:
        """Memory that is free."""
        return int(torch.cuda.mem_get_info()[0])

    def release(self) -> None:
        """Give cached memory back, so that the next stage finds it."""
        torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        """Name, memory, clocks."""
        properties = torch.cuda.get_device_properties(self.device)
        facts = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "sms": properties.multi_processor_count,
            "capability": list(torch.cuda.get_device_capability()),
            "cuda": torch.version.cuda,
        }
        query = "clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,driver_version"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            facts |= dict(zip(query.split(","), told.strip().splitlines()[0].split(", "), strict=True))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            facts["nvidia-smi"] = f"{type(error).__name__} {error}"[:200]
        return facts


class DryGpu(Gpu):
    """Tensors on the CPU, Triton's interpreter, wall-clock times, and each call as rarely as can be."""

    dry = True
    name = "dry"

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing runs behind the back of the host."""

    def warm_up(self, seconds: float) -> None:
        """There are no clocks to raise."""

    def capture(self, call: Call) -> Call:
        """The call itself."""
        return call

    def timed(self, calls: list[Call], replays: int = 20) -> Took:
        """Wall clock of the first call."""
        return self.timed_eagerly(calls[0])

    def timed_eagerly(self, call: Call, repeats: int = 10, warm: int = 2) -> Took:
        """Wall clock of one call."""
        began = time.perf_counter()
        call()
        return Took.of([(time.perf_counter() - began) * 1e6])

    def pinned(self, size: int) -> torch.Tensor:
        """Ordinary memory."""
        return torch.empty(size, dtype=torch.uint8)

    def free_bytes(self) -> int:
        """A small machine."""
        return 1 << 30

    def release(self) -> None:
        """Nothing is cached."""

    def facts(self) -> dict[str, Any]:
        """That this was dry."""
        return {"name": "interpreter"}
