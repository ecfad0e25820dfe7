"""How long a step takes, as a function of what is in it; fitted while the engine runs. Knows no requests.

    seconds = a + b * new_tokens + c * kv_tokens_read + d * attended

``new_tokens``: rows of the matrix products. ``kv_tokens_read``: for each sequence the tokens whose keys and values its
rows read. ``attended``: for chunks of more than one token, the pairs (query, key); decodes have none, their pairs are
what they read. The last term matters on CPUs and for long prompts, where attention is computation and not memory.
"""

from math import sqrt
from typing import NamedTuple

import msgspec

Features = tuple[float, float, float, float]

_FORGET = 0.998  # weight of the past at each step: the last 500 steps or so decide
_READY = 8


def read_of(start: int, count: int) -> int:
    """``kv_tokens_read`` of a chunk of ``count`` tokens after ``start`` others."""
    return start + count


def attended_of(start: int, count: int) -> float:
    """``attended`` of a chunk."""
    return count * (start + (count + 1) / 2) if count > 1 else 0.0


class Work(NamedTuple):
    """What is in a step."""

    new_tokens: int
    kv_tokens_read: int
    attended: float


class CostModel(msgspec.Struct, frozen=True):
    """Seconds, per step, new token, token read, and pair. Defaults: roughly 8 B parameters on one H100-class GPU."""

    a: float = 8e-3
    b: float = 6e-5
    c: float = 6e-8
    d: float = 0.0

    def seconds(self, new_tokens: float, kv_tokens_read: float, attended: float = 0.0) -> float:
        """Predicted time of one step."""
        return self.a + self.b * new_tokens + self.c * kv_tokens_read + self.d * attended

    def largest_chunk(self, seconds: float, start: int) -> int:
        """Tokens of one chunk after ``start`` others that ``seconds`` (without ``a``) suffice for; at least 0.

        The positive root of b*x + c*(start + x) + d*(x*start + x*(x+1)/2) = seconds.
        """
        left = seconds - self.c * start
        if left <= 0:
            return 0
        linear = self.b + self.c + self.d * (start + 0.5)
        if self.d <= 0:
            return int(left / linear) if linear > 0 else 1 << 30
        return int((sqrt(linear * linear + 2 * self.d * left) - linear) / self.d)


# Sizes at which each feature is about 1, so that the fit is well conditioned.
_SCALE: Features = (1.0, 256.0, 16_384.0, 262_144.0)


class OnlineFit:
    """Recursive least squares with forgetting (Ljung, System Identification, 11.2) over the four features.

    Starts from ``prior``; it is *ready* after a few steps. About 20 us a step.
    """

    def __init__(self, prior: CostModel | None = None) -> None:
        self.model = prior or CostModel()
        self.steps = 0 if prior is None else _READY
        model = self.model
        self._weights = [model.a, model.b * _SCALE[1], model.c * _SCALE[2], model.d * _SCALE[3]]
        spread = 1.0 if prior is None else 1e-3
        self._covariance = [[spread * (i == j) for j in range(4)] for i in range(4)]

    @property
    def ready(self) -> bool:
        """Whether the model rests on measurements or on a given prior."""
        return self.steps >= _READY

    def observe(self, seconds: float, new_tokens: float, kv_tokens_read: float, attended: float) -> None:
        """A step took ``seconds``. One that took far longer than ever explained (the machine was busy with something
        else) counts as three times the prediction."""
        x = (1.0, new_tokens / _SCALE[1], kv_tokens_read / _SCALE[2], attended / _SCALE[3])
        weights, covariance = self._weights, self._covariance
        predicted = sum(w * v for w, v in zip(weights, x, strict=True))
        if self.ready and predicted > 0:
            seconds = min(seconds, 3 * predicted)
        gain = [sum(p * v for p, v in zip(row, x, strict=True)) for row in covariance]
        scale = _FORGET + sum(g * v for g, v in zip(gain, x, strict=True))
        error = seconds - predicted
        for i in range(4):
            weights[i] += gain[i] / scale * error
        for i in range(4):
            row, factor = covariance[i], gain[i] / scale
            for j in range(4):
                row[j] = (row[j] - factor * gain[j]) / _FORGET
        # Directions that do not occur for long would grow without bound; a wide prior is as good as none.
        if max(covariance[i][i] for i in range(4)) > 1e3:
            self._covariance = [[value * 0.1 for value in row] for row in covariance]
        self.steps += 1
        a, b, c, d = (max(w / s, 0.0) for w, s in zip(weights, _SCALE, strict=True))
        self.model = CostModel(a, b, c, d)
