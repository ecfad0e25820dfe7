"""Root mean square normalisation, with the residual addition before it. Knows tensors only."""

import torch

from kernels.cpu import rms_norm as native
from kernels.cpu.library import computes
from kernels.gpu import on_gpu
from kernels.reference.rms_norm import rms_norm as reference


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """``x / rms(x) * weight`` over the last dimension (Zhang and Sennrich 2019, "Root Mean Square Layer
    Normalization").

    x         [..., width], any floating dtype; the mean square is taken in float32. On a GPU also [parts, ..., width]
              float32 with a residual: their sum, rounded to the dtype of ``weight``, is meant
    weight    [width], the dtype of ``x``
    residual  as ``x``; when given, ``residual += x`` happens in place first and the sum is what is normalised

    Returns a new tensor [..., width]. A row's result does not depend on the other rows.
    """
    if on_gpu(x):
        from kernels.triton.rms_norm import rms_norm as by_triton

        return by_triton(x, weight, eps, residual)
    parts = (x, weight) if residual is None else (x, weight, residual)
    if computes(x.dtype, x.device) and all(part.dtype == torch.float32 and part.is_contiguous() for part in parts):
        return native.rms_norm(x, weight, eps, residual)
    return reference(x, weight, eps, residual)
