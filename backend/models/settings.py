"""Reading Hugging Face's ``config.json`` keys, old names and new, with errors that name the key. Knows no family."""

from collections.abc import Mapping
from typing import Any

import torch

from backend.errors import StartError
from backend.models.config import ModelConfig
from backend.models.layers.rope import rope_config

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def wrong(message: str) -> StartError:
    """An error about the config file."""
    return StartError(f"config.json: {message}", code="bad_config", param="config.json")


def count(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer; a missing key or null takes the default."""
    value = raw.get(key)
    if value is None:
        value = default
    if value is None:
        raise wrong(f"{key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(f"{key} must be a positive integer, not {value!r}")
    return value


def flag(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false; a missing key or null takes the default."""
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(f"{key} must be true or false, not {value!r}")
    return value


def read_shape(raw: Mapping[str, Any], architecture: str, **family: Any) -> ModelConfig:
    """What all families spell alike. ``family``: fields of ``ModelConfig`` that the family decides, and ``head_dim``
    (default), ``window`` (positions after which attention would slide, or None)."""
    _refuse_unsupported(raw)
    hidden, heads = count(raw, "hidden_size"), count(raw, "num_attention_heads")
    kv_heads = count(raw, "num_key_value_heads", heads)
    head_dim = count(raw, "head_dim", family.pop("head_dim", None) or hidden // heads)
    if heads % kv_heads:
        raise wrong(f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})")
    if head_dim % 2:
        raise wrong(f"head_dim must be even for rotary positions, not {head_dim}")
    positions = count(raw, "max_position_embeddings", 2048)
    return ModelConfig(
        architecture=architecture,
        vocab_size=count(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=count(raw, "intermediate_size"),
        layers=count(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=_norm_eps(raw),
        max_context=min(positions, family.pop("window", None) or positions),
        rope=rope_config(_rope_settings(raw), head_dim, positions),
        tied_embeddings=flag(raw, "tie_word_embeddings", False),
        dtype=_dtype(raw),
        **family,
    )


def window_if_used(raw: Mapping[str, Any]) -> int | None:
    """Qwen's sliding window, which counts only when it is switched on."""
    return count(raw, "sliding_window") if flag(raw, "use_sliding_window", False) else None


def _rope_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping from either spelling: ``rope_parameters``, or ``rope_theta`` with ``rope_scaling``."""
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(settings, Mapping):
        raise wrong(f"rope settings must be an object, not {settings!r}")
    return {"rope_theta": raw.get("rope_theta") or 10000.0, **{k: v for k, v in settings.items() if v is not None}}


def _norm_eps(raw: Mapping[str, Any]) -> float:
    value = raw.get("rms_norm_eps", 1e-6)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise wrong(f"rms_norm_eps must be a number from 0 to 1, not {value!r}")
    return float(value)


def _dtype(raw: Mapping[str, Any]) -> torch.dtype:
    name = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if name not in DTYPES:
        raise wrong(f"dtype {name!r} is not supported ({', '.join(DTYPES)} are)")
    return DTYPES[name]


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    """What would load and then compute something else."""
    if (activation := raw.get("hidden_act", "silu")) != "silu":
        raise wrong(f"hidden_act {activation!r} is not supported (silu is)")
    if raw.get("quantization_config"):
        raise wrong("quantized checkpoints are not supported")
