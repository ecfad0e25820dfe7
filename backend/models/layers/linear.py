"""A linear layer, possibly several checkpoint layers fused along their outputs."""

from collections.abc import Iterator

import torch

from backend.models.layers.parameter import Parameter, split
from kernels.linear import LinearWeight, linear, prepare


class Linear:
    """``x [rows, in] -> [rows, sum of outputs]``; weight [sum of outputs, in], bias optional.

    ``gated``: the first half of the outputs are gates and the second ups; ``-> [rows, half]``, silu(gate) * up.
    """

    def __init__(
        self,
        inputs: int,
        outputs: dict[str, int],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
        gated: bool = False,
        parts: bool = False,
    ) -> None:
        """``outputs``: the checkpoint's layer names and how many outputs each has, in fused order. ``parts``: a norm
        with a residual follows, so the result may come in parts (``kernels.linear.linear``)."""
        self._parts = parts
        self._outputs = outputs
        self._gated = gated
        self._weight = torch.empty(sum(outputs.values()), inputs, dtype=dtype, device=device)
        self._bias = torch.empty(sum(outputs.values()), dtype=dtype, device=device) if bias else None
        self._ready: LinearWeight | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.ready, self._parts)

    @property
    def ready(self) -> LinearWeight:
        """The prepared weights."""
        assert self._ready is not None, "prepare() comes before the first pass"
        return self._ready

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go; gone once the layer is prepared."""
        sizes = list(self._outputs.values())
        yield from split([f"{name}.weight" for name in self._outputs], sizes, self._weight)
        if self._bias is not None:
            yield from split([f"{name}.bias" for name in self._outputs], sizes, self._bias)

    def prepare(self, int8: bool) -> int:
        """Bring the filled weights into the form that is computed with; returns their bytes."""
        self._ready = prepare(self._weight, self._bias, self._gated, int8)
        self._weight, self._bias = self._weight.new_empty(0), None
        return self._ready.size_bytes
