"""Which rows of a step are numbers. Knows tensors only."""

import torch

from kernels.cpu.library import computes
from kernels.cpu.rows_finite import rows_finite as native
from kernels.gpu import on_gpu
from kernels.reference.rows_finite import rows_finite as reference


def rows_finite(x: torch.Tensor) -> torch.Tensor:
    """Whether the float32 sum of each row of x [rows, width] is finite, [rows] bool: false where a value is infinite or
    not a number, and where finite ones add up to more than float32 has."""
    if on_gpu(x):
        from kernels.triton.rows_finite import rows_finite as by_triton

        return by_triton(x)
    if x.dtype == torch.float32 and computes(x.dtype, x.device) and x.stride(1) == 1:
        return native(x)
    return reference(x)
