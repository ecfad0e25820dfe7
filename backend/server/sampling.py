"""How a request wants its tokens drawn: numbers checked, the model's defaults filled in. Knows no protocol's events."""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec

from backend.errors import RequestError
from backend.server.limits import Limits
from backend.text.folder import read_json
from scheduler.plan import Sampling

_MAX_TOP_K = 1 << 20
_MAX_TOKENS = (1 << 31) - 1


class Defaults(msgspec.Struct, frozen=True):
    """What the checkpoint recommends in generation_config.json, where a request says nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def load(cls, folder: Path) -> "Defaults":
        """``do_sample: false`` means greedy. Values of another type or out of range count as absent."""
        config = read_json(folder / "generation_config.json")
        if config.get("do_sample") is False:
            return cls(temperature=0.0)
        temperature, top_k, top_p = (config.get(name) for name in ("temperature", "top_k", "top_p"))
        return cls(
            temperature=_number(temperature, 0.0, 2.0, 1.0),
            top_k=int(_number(top_k, 0, _MAX_TOP_K, 0)),
            top_p=_number(top_p, 0.0, 1.0, 1.0) or 1.0,
        )


class Asked(msgspec.Struct, frozen=True):
    """What the request says, each None where it is silent. ``max_tokens_name``: how the protocol calls that field."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    max_tokens_name: str = "max_tokens"


class Options(msgspec.Struct, frozen=True):
    """Checked and complete. ``max_tokens`` None: as many as the context has room for."""

    sampling: Sampling
    max_tokens: int | None
    stops: tuple[str, ...]
    ignore_eos: bool


def check_options(asked: Asked, defaults: Defaults, limits: Limits, new_seed: Callable[[], int]) -> Options:
    """Raises ``RequestError`` naming the field that is out of range."""
    temperature = _within("temperature", asked.temperature, 0.0, 2.0, defaults.temperature)
    top_p = _within("top_p", asked.top_p, 0.0, 1.0, defaults.top_p)
    if top_p == 0.0:  # the smallest set that holds more than nothing is the most probable token
        temperature, top_p = 0.0, 1.0
    top_k = int(_within("top_k", asked.top_k, 0, _MAX_TOP_K, defaults.top_k))
    seed = asked.seed
    if seed is not None and not -(1 << 63) <= seed < 1 << 63:
        raise RequestError("seed must be a 64-bit integer", param="seed")
    if asked.max_tokens is not None:
        _within(asked.max_tokens_name, asked.max_tokens, 1, _MAX_TOKENS, 1)
    drawn = new_seed() if seed is None else seed & ((1 << 63) - 1)
    return Options(
        sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=drawn),
        max_tokens=asked.max_tokens,
        stops=_stops(asked.stop, limits),
        ignore_eos=bool(asked.ignore_eos),
    )


def _stops(stop: str | list[str] | None, limits: Limits) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > limits.stop_strings:
        raise RequestError(f"at most {limits.stop_strings} stop strings, not {len(stops)}", param="stop")
    if any(not 0 < len(text) <= limits.stop_chars for text in stops):
        raise RequestError(f"a stop string has 1 to {limits.stop_chars} characters", param="stop")
    return stops


def _within(name: str, value: float | None, low: float, high: float, default: float) -> float:
    if value is None:
        return default
    if not math.isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be between {low} and {high}", param=name)
    return value


def _number(value: object, low: float, high: float, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and low <= value <= high else default  # type: ignore[arg-type,operator]
