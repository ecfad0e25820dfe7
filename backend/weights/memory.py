"""How much memory can still be taken. Knows Linux's and CUDA's ways to ask, nothing of models."""

import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Bytes that can be allocated on ``device`` without swapping or being killed: free and reclaimable memory, within
    the limit of the control group (version 2) that this process is in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_system(), _control_group())


def _system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: free pages are what is left to ask for
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group() -> int:
    """Room up to the limit, file cache counted as free; a very large number when there is no limit."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used + int(statistics.get("inactive_file", 0)))
