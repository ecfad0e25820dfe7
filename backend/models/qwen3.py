"""Qwen3: heads of 128 unless said otherwise, queries and keys normalised per head."""

from collections.abc import Mapping
from typing import Any

from backend.models.config import ModelConfig
from backend.models.settings import flag, read_shape, window_if_used


def read_qwen3(raw: Mapping[str, Any]) -> ModelConfig:
    """``Qwen3ForCausalLM``."""
    bias = flag(raw, "attention_bias", False)
    window = window_if_used(raw)
    return read_shape(raw, "qwen3", head_dim=128, qkv_bias=bias, output_bias=bias, qk_norm=True, window=window)
