"""The gated MLP: gate, up and activation in one product, down."""

from collections.abc import Iterator

import torch

from backend.models.config import ModelConfig
from backend.models.layers.linear import Linear
from backend.models.layers.parameter import Parameter


class MLP:
    """``x [rows, hidden] -> [rows, hidden]``."""

    def __init__(self, name: str, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        width = config.intermediate_size
        fused = {f"{name}.gate_proj": width, f"{name}.up_proj": width}
        self.gate_up = Linear(config.hidden_size, fused, config.mlp_bias, dtype, device, gated=True)
        self.down = Linear(width, {f"{name}.down_proj": config.hidden_size}, config.mlp_bias, dtype, device, parts=True)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.gate_up(x))

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go."""
        yield from self.gate_up.parameters()
        yield from self.down.parameters()

    def prepare(self, int8: bool) -> int:
        """See ``Linear.prepare``."""
        return self.gate_up.prepare(int8) + self.down.prepare(int8)
