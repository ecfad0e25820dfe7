"""Self-attention: projections in one product, rotary positions, the paged cache, output projection."""

from collections.abc import Iterator

import torch

from backend.models.batch import Batch
from backend.models.config import ModelConfig
from backend.models.layers.linear import Linear
from backend.models.layers.norm import RMSNorm
from backend.models.layers.parameter import Parameter
from kernels.kv_write import kv_write
from kernels.paged_attention import paged_attention
from kernels.rope import rope


class Attention:
    """``x [rows, hidden] -> [rows, hidden]``; writes the rows' keys and values into ``layer`` of the pool."""

    def __init__(self, name: str, layer: int, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        fused = {f"{name}.q_proj": q, f"{name}.k_proj": kv, f"{name}.v_proj": kv}
        self.layer = layer
        self.config = config
        self.qkv = Linear(config.hidden_size, fused, config.qkv_bias, dtype, device)
        self.output = Linear(q, {f"{name}.o_proj": config.hidden_size}, config.output_bias, dtype, device)
        self.norms: list[RMSNorm] = []
        if config.qk_norm:
            names = (f"{name}.q_norm", f"{name}.k_norm")
            self.norms = [RMSNorm(part, config.head_dim, config.norm_eps, dtype, device) for part in names]

    def __call__(
        self, x: torch.Tensor, batch: Batch, pool: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        config = self.config
        heads = self.qkv(x).view(len(x), -1, config.head_dim)
        rotated, value = heads[:, : config.heads + config.kv_heads], heads[:, config.heads + config.kv_heads :]
        if self.norms:
            normed = [self.norms[0](rotated[:, : config.heads]), self.norms[1](rotated[:, config.heads :])]
            rotated = torch.cat(normed, dim=1)
        rotated = rope(rotated, *angles)
        query, key = rotated[:, : config.heads], rotated[:, config.heads :]
        kv_write(pool, self.layer, key, value, batch.slots)
        attended = paged_attention(query, pool, self.layer, batch.attention, config.scale)
        return self.output(attended.view(len(x), -1))

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go."""
        yield from self.qkv.parameters()
        yield from self.output.parameters()
        for norm in self.norms:
            yield from norm.parameters()
