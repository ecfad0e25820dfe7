"""Tiny random checkpoints made with transformers, one per case. Weights are large enough that the argmax is not
degenerate."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


@dataclass(frozen=True)
class Case:
    """A family and a shape; ``extra`` goes into the config, ``shards`` is a size like "100KB" or None."""

    name: str
    family: str
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    extra: dict[str, Any] = field(default_factory=dict)
    shards: str | None = None


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
CASES = [
    Case("llama-g1-d64", "llama", 2, 2, 64, 331),
    Case("llama-g2-d128-llama3-sharded", "llama", 4, 2, 128, 512, {"rope_parameters": LLAMA3}, "200KB"),
    Case("llama-g3-d64-tied", "llama", 9, 3, 64, 1009, {"tie_word_embeddings": True}),
    Case("llama-g8-d80-biases", "llama", 8, 1, 80, 333, {"attention_bias": True, "mlp_bias": True}),
    Case(
        "llama-g5-d32-linear",
        "llama",
        5,
        1,
        32,
        257,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5}},
    ),
    Case("llama-g6-d64-yarn", "llama", 6, 1, 64, 257, {"rope_parameters": YARN}),
    Case(
        "llama-g2-d64-dynamic",
        "llama",
        4,
        2,
        64,
        257,
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    Case("mistral-g4-d80", "mistral", 8, 2, 80, 401, {"sliding_window": None}),
    Case("mistral-g2-d64-window", "mistral", 4, 2, 64, 401, {"sliding_window": 256}),
    Case("qwen2-g7-d64-tied", "qwen2", 7, 1, 64, 777, {"tie_word_embeddings": True}),
    Case("qwen2-g2-d128", "qwen2", 4, 2, 128, 500),
    Case("qwen3-g4-d128", "qwen3", 4, 1, 128, 511),
    Case("qwen3-g3-d80-bias-tied", "qwen3", 6, 2, 80, 511, {"attention_bias": True, "tie_word_embeddings": True}),
]


def make_reference(case: Case) -> torch.nn.Module:
    """The transformers model of a case; every parameter random, norms around 1."""
    hidden = 16 * case.heads
    settings = {
        "vocab_size": case.vocab,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden + 8,
        "num_hidden_layers": 2,
        "num_attention_heads": case.heads,
        "num_key_value_heads": case.kv_heads,
        "head_dim": case.head_dim,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **case.extra,
    }
    if case.family == "qwen2":
        del settings["head_dim"]  # it has none of its own
        settings["hidden_size"] = case.heads * case.head_dim
    model = AutoModelForCausalLM.from_config(CONFIGS[case.family](**settings), attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(len(case.name))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else noise * (1.2 / model.config.hidden_size**0.5))
    return model


def save(case: Case, folder: Path) -> torch.nn.Module:
    """Write the case's checkpoint to ``folder``; the model that was written."""
    model = make_reference(case)
    model.save_pretrained(folder, **({"max_shard_size": case.shards} if case.shards else {}))
    return model
