"""Which dtype to run in when nobody says. Knows dtypes and devices, not models."""

import time
from functools import cache

import torch
from torch.nn.functional import linear

from backend.errors import StartError
from backend.models.settings import DTYPES
from kernels.cpu.library import computes

MARGIN = 1.5  # so that a busy machine does not decide


def choose_dtype(name: str, checkpoint: torch.dtype, device: torch.device) -> torch.dtype:
    """``name``: ``auto``, ``float32``, ``float16`` or ``bfloat16``.

    ``auto`` keeps the checkpoint's dtype on GPUs. On CPUs float32 is run as float32; a bfloat16 checkpoint stays so
    (half the bytes to move) where the library of CPU kernels widens it on the way or this CPU multiplies bfloat16
    clearly faster, and is widened elsewhere; float16 is widened, no CPU path for it is fast. The answer does not change
    while the process runs.
    """
    if name != "auto":
        if name not in DTYPES:
            raise StartError(f"dtype {name!r} is unknown (auto, {', '.join(DTYPES)} are known)", param="dtype")
        return DTYPES[name]
    if device.type != "cpu":
        return checkpoint
    if checkpoint == torch.bfloat16 and (computes(checkpoint, device) or bfloat16_is_faster()):
        return torch.bfloat16
    return torch.float32


@cache
def bfloat16_is_faster() -> bool:
    """Whether a product of 256 rows is at least ``MARGIN`` times as fast in bfloat16, best of three; about 30 ms, once.

    Measured, because flags do not tell: of two CPUs with AVX-512, one was 4.5 times as fast in
    bfloat16 and the other half as fast.
    """
    return MARGIN * _product_seconds(torch.bfloat16) < _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    x, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    times = []
    for _ in range(4):  # the first one also sets up
        began = time.perf_counter()
        linear(x, weight)
        times.append(time.perf_counter() - began)
    return min(times)
