"""Rotary positions: from a checkpoint's rope settings to frequencies, and from positions to cosines and sines.

Scaling follows the formulas of the papers as Hugging Face's checkpoints use them: linear (Chen et al. 2023), YaRN (Peng
et al. 2023), Llama 3.1's three bands. Dynamic NTK changes the frequencies of a sequence while it grows, so that cached
keys would be wrong; up to the trained length it equals no scaling, and there it is accepted.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from backend.errors import StartError
from backend.models.config import RopeConfig

LARGEST_TABLE = 1 << 20
"""Angles; so many are 8 MB in float32."""


class RotaryEmbedding:
    """Cosines and sines of a step, shared by all layers. They are looked up: one operation instead of eight, for
    ``4 * max_positions * head_dim / 2`` bytes in 16 bits. On a CPU only where the table is small."""

    def __init__(self, config: RopeConfig, dtype: torch.dtype, device: torch.device, max_positions: int) -> None:
        self._frequencies = torch.tensor(config.inverse_frequencies, dtype=torch.float32, device=device)
        self._factor = config.factor
        self._dtype = dtype
        self._table: torch.Tensor | None = None
        if device.type == "cuda" or max_positions * len(config.inverse_frequencies) <= LARGEST_TABLE:
            self._table = self._computed(torch.arange(max_positions, device=device))

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions [rows] int64 -> cosine and sine, [rows, head_dim/2] each; angles are float32."""
        table = self._computed(positions) if self._table is None else self._table.index_select(1, positions)
        return table[0], table[1]

    def _computed(self, positions: torch.Tensor) -> torch.Tensor:
        """[2, positions, head_dim/2]"""
        angles = positions.float()[:, None] * self._frequencies
        return torch.stack(
            [(angles.cos() * self._factor).to(self._dtype), (angles.sin() * self._factor).to(self._dtype)]
        )


def rope_config(settings: Mapping[str, Any], head_dim: int, max_positions: int) -> RopeConfig:
    """Frequencies for a checkpoint's rope settings (``rope_theta`` and the scaling's keys, in one mapping).

    Raises ``StartError`` for a kind that is not supported or a missing or impossible number.
    """
    kind = settings.get("rope_type", settings.get("type", "default"))
    if settings.get("partial_rotary_factor", 1.0) != 1.0:
        raise StartError("rope: partial_rotary_factor other than 1 is not supported", param="config.json")
    theta = _number(settings, "rope_theta")
    # float32 as in the reference, so that angles at large positions agree.
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / (theta**exponents)
    if kind in ("default", "dynamic", None):
        return _config(plain)
    if kind == "linear":
        return _config(plain / _number(settings, "factor"))
    if kind == "llama3":
        return _config(_llama3(plain, settings))
    if kind == "yarn":
        return _yarn(theta, exponents, settings, head_dim, max_positions)
    raise StartError(
        f"rope: scaling {kind!r} is not supported (default, linear, llama3, yarn, dynamic are)", param="config.json"
    )


def _config(frequencies: torch.Tensor, factor: float = 1.0) -> RopeConfig:
    return RopeConfig(tuple(frequencies.tolist()), factor)


def _number(settings: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = settings.get(key, default)
    if value is None and default is not None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise StartError(f"rope: {key} must be a positive number, not {value!r}", param="config.json")
    return float(value)


def _llama3(plain: torch.Tensor, settings: Mapping[str, Any]) -> torch.Tensor:
    """Long waves are divided by the factor, short ones kept, between the two a linear blend."""
    factor, low, high = (_number(settings, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = _number(settings, "original_max_position_embeddings")
    if low == high:
        raise StartError("rope: low_freq_factor and high_freq_factor must differ", param="config.json")
    waves = 2 * math.pi / plain
    smooth = (trained / waves - low) / (high - low)
    blended = (1 - smooth) * plain / factor + smooth * plain
    scaled = torch.where(waves > trained / low, plain / factor, plain)
    between = (waves >= trained / high) & (waves <= trained / low)
    return torch.where(between, blended, scaled)


def _yarn(
    theta: float, exponents: torch.Tensor, settings: Mapping[str, Any], head_dim: int, max_positions: int
) -> RopeConfig:
    """Frequencies that turn often within the trained length are kept, slow ones interpolated, between the two a
    ramp."""
    trained = _number(settings, "original_max_position_embeddings", float(max_positions))
    factor = _number(settings, "factor", max_positions / trained)

    def dimension(turns: float) -> float:
        return head_dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(_number(settings, "beta_fast", 32.0)), dimension(_number(settings, "beta_slow", 1.0))
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low or 0.001)
    interpolated = ramp.clamp(0, 1)
    powers = theta**exponents
    frequencies = interpolated / (factor * powers) + (1 - interpolated) / powers
    return _config(frequencies, _yarn_factor(factor, settings))


def _yarn_factor(factor: float, settings: Mapping[str, Any]) -> float:
    """What cosine and sine are multiplied by."""

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if settings.get("attention_factor") is not None:
        return _number(settings, "attention_factor")
    over, under = settings.get("mscale"), settings.get("mscale_all_dim")
    if over and under:
        return magnitude(_number(settings, "mscale")) / magnitude(_number(settings, "mscale_all_dim"))
    return magnitude(1.0)
