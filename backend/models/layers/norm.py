"""RMS norm with its weight."""

from collections.abc import Iterator

import torch

from backend.models.layers.parameter import Parameter
from kernels.rms_norm import rms_norm


class RMSNorm:
    """``x [..., width]`` normalised over the last dimension; with ``residual``, of ``residual += x`` (in place)."""

    def __init__(self, name: str, width: int, eps: float, dtype: torch.dtype, device: torch.device) -> None:
        self._name = name
        self.eps = eps
        self.weight = torch.empty(width, dtype=dtype, device=device)

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return rms_norm(x, self.weight, self.eps, residual)

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensor goes."""
        yield Parameter(f"{self._name}.weight", self.weight)

    def prepare(self, dtype: torch.dtype) -> int:
        """Keep the weight in the dtype of what is normalised; returns its bytes."""
        self.weight = self.weight.to(dtype)
        return self.weight.nbytes
