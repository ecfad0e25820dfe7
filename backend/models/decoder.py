"""The forward pass that every family here shares: embedding, blocks of attention and MLP, norm, output head.

Knows nothing of requests: a step is a ``Batch`` of rows and a pool of pages. No state between calls but the pool's
content.
"""

from collections.abc import Iterator

import torch

from backend.models.batch import Batch
from backend.models.config import ModelConfig
from backend.models.layers.attention import Attention
from backend.models.layers.mlp import MLP
from backend.models.layers.norm import RMSNorm
from backend.models.layers.parameter import Parameter
from backend.models.layers.rope import RotaryEmbedding
from kernels.cpu.decode import Layer, Layers
from kernels.cpu.library import computes
from kernels.cpu.ragged_attention import RaggedPlan
from kernels.linear import LinearWeight, embedding, linear, prepare
from kernels.rows_finite import rows_finite


class Block:
    """One layer: attention and MLP, each behind its norm."""

    def __init__(self, layer: int, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        name = f"model.layers.{layer}"
        norm = (config.hidden_size, config.norm_eps, dtype, device)
        self.attention_norm = RMSNorm(f"{name}.input_layernorm", *norm)
        self.attention = Attention(f"{name}.self_attn", layer, config, dtype, device)
        self.mlp_norm = RMSNorm(f"{name}.post_attention_layernorm", *norm)
        self.mlp = MLP(f"{name}.mlp", config, dtype, device)

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go."""
        for part in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            yield from part.parameters()

    def packed(self) -> Layer | None:
        """The weights as the CPU library's layer; None where it does not compute."""
        attention, mlp = self.attention, self.mlp
        qkv, output = attention.qkv.ready.packed, attention.output.ready.packed
        gate_up, down = mlp.gate_up.ready.packed, mlp.down.ready.packed
        if qkv is None or output is None or gate_up is None or down is None:
            return None
        return Layer(
            qkv,
            output,
            gate_up,
            down,
            attention_norm=self.attention_norm.weight,
            mlp_norm=self.mlp_norm.weight,
            q_norm=None if attention.q_norm is None else attention.q_norm.weight,
            k_norm=None if attention.k_norm is None else attention.k_norm.weight,
        )

    def prepare(self, int8: bool, activations: torch.dtype) -> int:
        """See ``Decoder.prepare``."""
        norms = self.attention_norm.prepare(activations) + self.mlp_norm.prepare(activations)
        return norms + self.attention.prepare(int8, activations) + self.mlp.prepare(int8)


class Decoder:
    """A causal language model. Weights are uninitialised until ``parameters()`` have been filled; then ``prepare()``.

    ``dtype``: of weights and KV pages. What flows between the layers is in ``activations``: float32 where the CPU
    library computes (it widens weights and keys as it reads them), else ``dtype``.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.dtype = dtype
        self.device = device
        self.activations = torch.float32 if computes(dtype, device) else dtype
        self._embedding = torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device=device)
        self._head = self._embedding if config.tied_embeddings else torch.empty_like(self._embedding)
        self._blocks = [Block(layer, config, dtype, device) for layer in range(config.layers)]
        self._norm = RMSNorm("model.norm", config.hidden_size, config.norm_eps, dtype, device)
        self._rotary = RotaryEmbedding(config.rope, self.activations, device, config.max_context)
        self._table: LinearWeight | None = None
        self._output: LinearWeight | None = None
        self._layers: Layers | None = None

    def forward(
        self, batch: Batch, pool: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [len(logit_rows), vocab] float32, in ``out`` where that is given, and for each row whether its final
        state is finite, [rows] bool.

        ``pool`` [pages, layers, 2, kv_heads, page_size, head_dim] in the run dtype, contiguous; gets the rows' keys and
        values.
        """
        assert self._table is not None and self._output is not None, "prepare() comes before the first pass"
        residual = embedding(batch.tokens, self._table)
        angles = self._rotary(batch.positions)
        if self._layers is not None and isinstance(batch.attention, RaggedPlan):
            self._layers.run(residual, *angles, batch.slots, pool, batch.attention)
            x = self._norm(residual)
        else:
            x = self._run_blocks(residual, batch, pool, angles)
        finite = rows_finite(x)
        logits = linear(x[batch.logit_rows], self._output)
        return (logits.float() if out is None else out.copy_(logits)), finite

    def _run_blocks(
        self, residual: torch.Tensor, batch: Batch, pool: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The state after the last norm, operation by operation."""
        x = self._blocks[0].attention_norm(residual)
        following = [block.attention_norm for block in self._blocks[1:]]
        for block, norm_after in zip(self._blocks, [*following, self._norm], strict=True):
            x = block.attention(x, batch, pool, angles)
            x = block.mlp(block.mlp_norm(x, residual))
            x = norm_after(x, residual)
        return x

    def parameters(self) -> Iterator[Parameter]:
        """Where the checkpoint's tensors go, in the order of the forward pass."""
        yield Parameter("model.embed_tokens.weight", self._embedding)
        for block in self._blocks:
            yield from block.parameters()
        yield from self._norm.parameters()
        if self._head is not self._embedding:
            yield Parameter("lm_head.weight", self._head)

    def prepare(self, int8: bool = False) -> int:
        """Bring the filled weights into the form that is computed with, layer by layer, letting go of the loaded ones;
        returns the bytes of all. ``int8``: see ``kernels.linear.prepare``."""
        tied = self._head is self._embedding
        self._table = prepare(self._embedding, int8=int8)
        self._output = self._table if tied else prepare(self._head, int8=int8)
        size = self._table.size_bytes + (0 if tied else self._output.size_bytes)
        self._embedding = self._head = self._embedding.new_empty(0)
        size += self._norm.prepare(self.activations)
        size += sum(block.prepare(int8, self.activations) for block in self._blocks)
        packed = [layer for block in self._blocks if (layer := block.packed()) is not None]
        if len(packed) == len(self._blocks):
            self._layers = Layers(packed, self.config.norm_eps, self.config.scale)
        return size
