"""What this device reaches with torch's own operations: everything else is held against these."""

import torch

from benchmarks.gpu.stage import Bench


def measure(bench: Bench) -> None:
    """Copy, read, matrix product, L2, copies from and to pinned memory."""
    gpu, table = bench.gpu, bench.table
    gpu.warm_up(2.0)
    size = bench.pick(4 << 30, 1 << 20)
    # Random bits: zeros run faster than anything real.
    source = torch.randint(-(2**62), 2**62, (size // 8,), device=bench.device)
    target = torch.empty_like(source)

    def note(name: str, took_us: float, work: float) -> None:
        table.ceilings[name] = work / took_us * 1e6

    # A copy of memory and a kernel that copies are not equally fast; the ceiling is the better one.
    ways = (lambda: target.copy_(source), lambda: torch.bitwise_not(source, out=target))
    took = min((gpu.timed_eagerly(way) for way in ways), key=lambda took: took.us)
    note("copy", took.us, 2 * size)
    table.share("", f"copy {size >> 20} MiB", took, 2 * size, "copy")
    wide = source.view(torch.float32)
    took = gpu.timed([lambda: wide.sum()], replays=10)
    note("read", took.us, size)
    table.share("", "read (sum)", took, size, "read")
    small = source[: bench.pick(20 << 20, 1 << 16) // 8].clone().view(torch.float32)
    took = gpu.timed([lambda: small.sum()] * 10)
    note("l2", took.us, small.nbytes)
    table.share("", "read from L2 (sum of 20 MiB)", took, small.nbytes, "l2")
    n = bench.pick(8192, 64)
    x = torch.randn(n, n, device=bench.device).to(bench.dtype)
    y = torch.randn(n, n, device=bench.device).to(bench.dtype)
    took = gpu.timed([lambda: torch.mm(x, y)] * 4, replays=20)
    note("matmul", took.us, 2 * n**3)
    table.share("", f"matmul {n}", took, 2 * n**3, "matmul")
    host = gpu.pinned(bench.pick(1 << 30, 1 << 16))
    there = torch.empty_like(host, device=bench.device)
    took = gpu.timed_eagerly(lambda: there.copy_(host, non_blocking=True), repeats=5)
    note("h2d", took.us, host.nbytes)
    table.share("", "pinned host to device", took, host.nbytes, "h2d")
    took = gpu.timed_eagerly(lambda: host.copy_(there, non_blocking=True), repeats=5)
    note("d2h", took.us, host.nbytes)
    table.share("", "device to pinned host", took, host.nbytes, "d2h")
