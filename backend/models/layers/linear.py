"""A linear layer, possibly several checkpoint layers fused along their outputs. Knows no activations."""

from collections.abc import Iterator

import torch
from torch.nn.functional import linear

from backend.models.layers.parameter import Parameter, split


class Linear:
    """``x [rows, in] -> [rows, sum of outputs]``; weight [sum of outputs, in], bias optional."""

    def __init__(
        self, inputs: int, outputs: dict[str, int], bias: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        """``outputs``: the checkpoint's layer names and how many outputs each has, in fused order."""
        self._outputs = outputs
        self.weight = torch.empty(sum(outputs.values()), inputs, dtype=dtype, device=device)
        self.bias = torch.empty(sum(outputs.values()), dtype=dtype, device=device) if bias else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go."""
        sizes = list(self._outputs.values())
        yield from split([f"{name}.weight" for name in self._outputs], sizes, self.weight)
        if self.bias is not None:
            yield from split([f"{name}.bias" for name in self._outputs], sizes, self.bias)
