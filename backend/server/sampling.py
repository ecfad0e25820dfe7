"""How a request wants its tokens drawn: numbers checked, the model's defaults filled in. Knows no protocol's events."""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec

from backend.errors import RequestError
from backend.server.limits import Limits
from backend.text.folder import read_json
from scheduler.plan import Sampling

MOST_LOGPROBS = 20
_MAX_TOP_K = 1 << 20
_MOST_PENALTY = 2.0
_REPETITION = (0.01, 10.0)
_MOST_BIAS = 100.0
_SEED_STRIDE = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: near seeds stay apart for any few choices
_MAX_TOKENS = (1 << 31) - 1


class Defaults(msgspec.Struct, frozen=True):
    """What the checkpoint recommends in generation_config.json, where a request says nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def load(cls, folder: Path) -> "Defaults":
        """``do_sample: false`` means greedy. Values of another type or out of range count as absent."""
        config = read_json(folder / "generation_config.json")
        repetition = _number(config.get("repetition_penalty"), *_REPETITION, 1.0)
        if config.get("do_sample") is False:
            return cls(temperature=0.0, repetition_penalty=repetition)
        return cls(
            temperature=_number(config.get("temperature"), 0.0, 2.0, 1.0),
            top_k=int(_number(config.get("top_k"), 0, _MAX_TOP_K, 0)),
            top_p=_number(config.get("top_p"), 0.0, 1.0, 1.0) or 1.0,
            min_p=_number(config.get("min_p"), 0.0, 1.0, 0.0),
            repetition_penalty=repetition,
        )


class Asked(msgspec.Struct, frozen=True):
    """What the request says, each None where it is silent. ``max_tokens_name``: how the protocol calls that field;
    ``logprobs``: how many alternatives to report beside each token's log-probability; ``logprobs_name``: likewise."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int | None = None
    max_tokens_name: str = "max_tokens"
    logprobs_name: str = "top_logprobs"


class Options(msgspec.Struct, frozen=True):
    """Checked and complete. ``max_tokens`` None: as many as the context has room for; ``n``: answers to a prompt."""

    sampling: Sampling
    max_tokens: int | None
    stops: tuple[str, ...]
    ignore_eos: bool
    n: int = 1

    def choice(self, index: int) -> "Options":
        """For the ``index``-th of the ``n`` answers: a seed of its own, that of the request for the first."""
        if not index:
            return self
        seed = (self.sampling.seed + index * _SEED_STRIDE) & ((1 << 63) - 1)
        return msgspec.structs.replace(self, sampling=msgspec.structs.replace(self.sampling, seed=seed))


def check_options(
    asked: Asked, defaults: Defaults, limits: Limits, new_seed: Callable[[], int], vocab_size: int
) -> Options:
    """Raises ``RequestError`` naming the field that is out of range. ``vocab_size``: token ids are below it."""
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
    if asked.logprobs is not None:
        _within(asked.logprobs_name, asked.logprobs, 0, MOST_LOGPROBS, 0)
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=drawn,
        min_p=_within("min_p", asked.min_p, 0.0, 1.0, defaults.min_p),
        presence_penalty=_within("presence_penalty", asked.presence_penalty, -_MOST_PENALTY, _MOST_PENALTY, 0.0),
        frequency_penalty=_within("frequency_penalty", asked.frequency_penalty, -_MOST_PENALTY, _MOST_PENALTY, 0.0),
        repetition_penalty=_within(
            "repetition_penalty", asked.repetition_penalty, *_REPETITION, defaults.repetition_penalty
        ),
        logit_bias=_logit_bias(asked.logit_bias or {}, limits, vocab_size),
        logprobs=asked.logprobs,
        prompt_logprobs=asked.prompt_logprobs,
    )
    return Options(
        sampling=sampling,
        max_tokens=asked.max_tokens,
        stops=_stops(asked.stop, limits),
        ignore_eos=bool(asked.ignore_eos),
        n=int(_within("n", asked.n, 1, limits.choices, 1)),
    )


def _stops(stop: str | list[str] | None, limits: Limits) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > limits.stop_strings:
        raise RequestError(f"at most {limits.stop_strings} stop strings, not {len(stops)}", param="stop")
    if any(not 0 < len(text) <= limits.stop_chars for text in stops):
        raise RequestError(f"a stop string has 1 to {limits.stop_chars} characters", param="stop")
    return stops


def _logit_bias(asked: dict[str, float], limits: Limits, vocab_size: int) -> dict[int, float]:
    """By token id; JSON's keys are text."""
    if len(asked) > limits.logit_biases:
        raise RequestError(f"at most {limits.logit_biases} tokens in logit_bias, not {len(asked)}", param="logit_bias")
    biases = {}
    for text, value in asked.items():
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) < vocab_size):
            raise RequestError(f"logit_bias: {text[:20]!r} is not a token id below {vocab_size}", param="logit_bias")
        biases[int(text)] = _within("logit_bias", value, -_MOST_BIAS, _MOST_BIAS, 0.0)
    return biases


def _within(name: str, value: float | None, low: float, high: float, default: float) -> float:
    if value is None:
        return default
    if not math.isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be between {low} and {high}", param=name)
    return value


def _number(value: object, low: float, high: float, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and low <= value <= high else default  # type: ignore[arg-type,operator]
