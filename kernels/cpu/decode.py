"""All layers of a decoder in one call of the C++ library (native/decode.h): no Python between them."""

from dataclasses import dataclass

import torch

from kernels.cpu.library import DecodeCall, LayerWeights, Pool, RotateCall, call
from kernels.cpu.linear import PackedWeight
from kernels.cpu.ragged_attention import RaggedPlan


@dataclass(frozen=True)
class Layer:
    """The prepared weights of a layer; norms are float32. ``q_norm`` and ``k_norm`` [head_dim] or None."""

    qkv: PackedWeight
    output: PackedWeight
    gate_up: PackedWeight
    down: PackedWeight
    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None


class Layers:
    """Layers ready to run; keeps their weights alive."""

    def __init__(self, layers: list[Layer], eps: float, scale: float) -> None:
        """``eps`` of all norms, ``scale`` of attention scores."""
        self._layers = layers
        self._eps = eps
        self._scale = scale
        self._told = (LayerWeights * len(layers))(
            *(
                LayerWeights(
                    qkv=layer.qkv.call(),
                    output=layer.output.call(),
                    gate_up=layer.gate_up.call(),
                    down=layer.down.call(),
                    attention_norm=layer.attention_norm.data_ptr(),
                    mlp_norm=layer.mlp_norm.data_ptr(),
                    q_norm=None if layer.q_norm is None else layer.q_norm.data_ptr(),
                    k_norm=None if layer.k_norm is None else layer.k_norm.data_ptr(),
                )
                for layer in layers
            )
        )

    def run(
        self,
        residual: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        slots: torch.Tensor,
        pool: torch.Tensor,
        plan: RaggedPlan,
    ) -> None:
        """Every layer in turn: ``residual`` [rows, hidden] float32, contiguous, becomes the state after the last one,
        and the pool gets the rows' keys and values. The rows are the plan's tokens.

        cos, sin  [rows, head_dim/2] float32; slots [rows] int64
        """
        rows, hidden = residual.shape
        if rows != plan.tokens:
            raise ValueError(f"{rows} rows for a plan of {plan.tokens} tokens")
        kv_heads, head_dim = pool.shape[3], pool.shape[5]
        heads = self._layers[0].qkv.width // head_dim - 2 * kv_heads
        cos, sin, slots = cos.contiguous(), sin.contiguous(), slots.contiguous()
        turn = RotateCall(
            rows=rows,
            heads=heads,
            cosine=cos.data_ptr(),
            sine=sin.data_ptr(),
            eps=self._eps,
            pool=Pool.of(pool),
            slots=slots.data_ptr(),
        )
        attention = plan.call(pool, heads, self._scale)
        count = len(self._layers)
        told = DecodeCall(self._told, count, residual.data_ptr(), rows, hidden, self._eps, turn, attention)
        call("banyan_decode", told)
