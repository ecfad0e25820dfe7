"""A small Llama in plain torch whose state dict has the names of Hugging Face's LlamaForCausalLM.

Knows: the architecture, and reading and writing the model folder. Does not know: text, training.
It is for training and checking, one sequence of equal-length rows at a time; the product serves with its own engine.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.demo.tokenizer import MAX_POSITIONS


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; defaults are those of the bundled one."""

    vocabulary: int = 2_560
    width: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    # High, so that half of each head's dimensions hardly turn within 2,000 positions: they compare tokens, whatever
    # the distance, while the others find neighbours.
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def hf_config(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "use_cache": True,
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
            # The file holds bf16 to be small; it is small enough to run in fp32, as the evaluation does.
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf_config(cls, config: dict[str, Any]) -> "Shape":
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["intermediate_size"],
            rope_theta=config["rope_theta"],
            norm_eps=config["rms_norm_eps"],
        )


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rope_tables(shape: Shape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin for positions [T], each [T, head_width], as Hugging Face's Llama lays them out."""
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = positions[..., None].float() * shape.rope_theta**-half
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x [B, heads, T, head_width]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Past:
    """Keys and values of the tokens before, for decoding; `positions` is how many those are."""

    def __init__(self) -> None:
        self.positions = 0
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Appends the layer's new keys and values [B, heads, T, head_width]; returns all of them."""
        if layer in self._kept:
            old_k, old_v = self._kept[layer]
            k, v = torch.cat((old_k, k), dim=2), torch.cat((old_v, v), dim=2)
        self._kept[layer] = (k, v)
        return k, v


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> Tensor:
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, -1).transpose(1, 2)  # [B, heads, T, head_width]

        q = rotate(split(self.q_proj(x)), cos, sin)
        k = rotate(split(self.k_proj(x)), cos, sin)
        v = split(self.v_proj(x))
        if past is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            k, v = past.extend(self, k, v)
            visible = torch.ones(length, k.shape[2], dtype=torch.bool).tril(k.shape[2] - length)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Backbone(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.norm_eps)


class DemoLlama(nn.Module):
    """The whole model; the output layer is the embedding, transposed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)

    def hidden(self, tokens: Tensor, past: Past | None = None) -> Tensor:
        """tokens [B, T] -> last hidden states [B, T, width]; with `past`, they follow what it holds, and enter it."""
        x = self.model.embed_tokens(tokens)
        first = 0 if past is None else past.positions
        cos, sin = (table.to(x.dtype) for table in rope_tables(self.shape, first + torch.arange(tokens.shape[1])))
        for layer in self.model.layers:
            x = layer(x, cos, sin, past)
        if past is not None:
            past.positions += tokens.shape[1]
        out: Tensor = self.model.norm(x)
        return out

    def layers(self) -> list[Layer]:
        return [layer for layer in self.model.layers if isinstance(layer, Layer)]

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocabulary]."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits(self.hidden(tokens))


def save_model(model: DemoLlama, folder: Path, dtype: torch.dtype) -> None:
    """Writes config.json, generation_config.json and model.safetensors; the weights last and at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.shape.hf_config()
    generation = {"do_sample": False, "eos_token_id": 2, "pad_token_id": 0, "max_new_tokens": 64}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {name: weight.detach().to(dtype).contiguous() for name, weight in model.state_dict().items()}
    part = folder / "model.safetensors.part"
    save_file(weights, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(folder / "model.safetensors")


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> DemoLlama:
    """Reads what `save_model` wrote."""
    model = DemoLlama(Shape.from_hf_config(json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(dtype).eval()
