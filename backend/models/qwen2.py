"""Qwen2 and Qwen2.5: biases on query, key and value, never on the output."""

from collections.abc import Mapping
from typing import Any

from backend.models.config import ModelConfig
from backend.models.settings import read_shape, window_if_used


def read_qwen2(raw: Mapping[str, Any]) -> ModelConfig:
    """``Qwen2ForCausalLM``."""
    return read_shape(raw, "qwen2", qkv_bias=True, window=window_if_used(raw))
