"""Self-attention: projections in one product, rotary positions, the paged cache, output projection."""

from collections.abc import Iterator

import torch

from backend.models.batch import Batch
from backend.models.config import ModelConfig
from backend.models.layers.linear import Linear
from backend.models.layers.norm import RMSNorm
from backend.models.layers.parameter import Parameter
from kernels.paged_attention import paged_attention
from kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write


class Attention:
    """``x [rows, hidden] -> [rows, hidden]``; writes the rows' keys and values into ``layer`` of the pool."""

    def __init__(self, name: str, layer: int, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        fused = {f"{name}.q_proj": q, f"{name}.k_proj": kv, f"{name}.v_proj": kv}
        self.layer = layer
        self.config = config
        self.qkv = Linear(config.hidden_size, fused, config.qkv_bias, dtype, device)
        self.output = Linear(q, {f"{name}.o_proj": config.hidden_size}, config.output_bias, dtype, device, parts=True)
        norm = (config.head_dim, config.norm_eps, dtype, device)
        self.q_norm = RMSNorm(f"{name}.q_norm", *norm) if config.qk_norm else None
        self.k_norm = RMSNorm(f"{name}.k_norm", *norm) if config.qk_norm else None

    def __call__(
        self, x: torch.Tensor, batch: Batch, pool: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        query = qk_norm_rope_kv_write(
            self.qkv(x),
            *angles,
            None if self.q_norm is None else self.q_norm.weight,
            None if self.k_norm is None else self.k_norm.weight,
            self.config.norm_eps,
            pool,
            self.layer,
            batch.slots,
        )
        attended = paged_attention(query, pool, self.layer, batch.attention, self.config.scale)
        return self.output(attended.view(len(x), -1))

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go."""
        yield from self.qkv.parameters()
        yield from self.output.parameters()
        for norm in self._norms():
            yield from norm.parameters()

    def prepare(self, int8: bool, activations: torch.dtype) -> int:
        """See ``Linear.prepare``."""
        norms = sum(norm.prepare(activations) for norm in self._norms())
        return norms + self.qkv.prepare(int8) + self.output.prepare(int8)

    def _norms(self) -> list[RMSNorm]:
        return [norm for norm in (self.q_norm, self.k_norm) if norm is not None]
