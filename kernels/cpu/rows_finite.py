"""``kernels.rows_finite`` by the C++ library: one pass, where torch takes two and a copy."""

import torch

from kernels.cpu.library import FiniteCall, call


def rows_finite(x: torch.Tensor) -> torch.Tensor:
    """See ``kernels.rows_finite.rows_finite``; float32, the last dimension contiguous."""
    rows, width = x.shape
    finite = torch.empty(rows, dtype=torch.bool)
    call("banyan_rows_finite", FiniteCall(x.data_ptr(), rows, width, x.stride(0), finite.data_ptr()))
    return finite
