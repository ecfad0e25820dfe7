"""The shape of a decoder, in our terms. Knows no file formats; the families translate Hugging Face's keys into it."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding. ``inverse_frequencies``: [head_dim/2] radians per position; ``factor`` multiplies cosine and
    sine."""

    inverse_frequencies: tuple[float, ...]
    factor: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer with rotary positions, RMS norms and a gated MLP.

    ``max_context``: most positions; where a checkpoint has a sliding window it is the window, so that attention over
    everything is what the model was trained to do.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    max_context: int
    rope: RopeConfig
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    dtype: torch.dtype = torch.float32  # of the checkpoint

    @property
    def scale(self) -> float:
        """Factor on attention scores."""
        return 1.0 / math.sqrt(self.head_dim)

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones once."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = (
            self.hidden_size * (2 * q + 2 * kv) + self.qkv_bias * (q + 2 * kv) + self.output_bias * self.hidden_size
        )
        attention += self.qk_norm * 2 * self.head_dim
        mlp = 3 * self.hidden_size * self.intermediate_size
        mlp += self.mlp_bias * (2 * self.intermediate_size + self.hidden_size)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.layers * (attention + mlp + 2 * self.hidden_size) + embeddings + self.hidden_size
