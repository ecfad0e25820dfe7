"""Llama 2 and 3, and what is built like them: SmolLM, Mistral. Biases only where the config says so."""

from collections.abc import Mapping
from typing import Any

from backend.models.config import ModelConfig
from backend.models.settings import count, flag, read_shape


def read_llama(raw: Mapping[str, Any]) -> ModelConfig:
    """``LlamaForCausalLM``: ``attention_bias`` is on all four projections."""
    bias = flag(raw, "attention_bias", False)
    return read_shape(raw, "llama", qkv_bias=bias, output_bias=bias, mlp_bias=flag(raw, "mlp_bias", False))


def read_mistral(raw: Mapping[str, Any]) -> ModelConfig:
    """``MistralForCausalLM``: no biases; a sliding window (null for none) bounds the context instead of sliding."""
    window = None if raw.get("sliding_window") is None else count(raw, "sliding_window")
    return read_shape(raw, "mistral", window=window)
