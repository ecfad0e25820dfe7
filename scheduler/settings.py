"""The scheduler's own settings: plain numbers, validated once."""

import math

import msgspec

from scheduler.arms import ARMS

_POSITIVE = ("page_size", "pages", "max_running", "max_step_tokens", "max_context", "max_waiting", "quantum_tokens")


class Settings(msgspec.Struct, frozen=True):
    """Sizes and aims of one engine.

    page_size          tokens per KV page
    pages              in the KV pool
    max_running        rows of the runner's block table: most requests in one step
    max_step_tokens    most tokens computed in one step, decodes and prefill chunks together; at least ``max_running``,
                       because every decode is in every step
    max_context        most tokens of prompt and output of one request
    max_waiting        requests in the queue; more are refused
    max_waiting_per_tenant  ... of one tenant; 0: as ``max_waiting``
    inter_token_s      aim for the time between two tokens of a stream: prefill chunks are cut so that a step with
                       decodes in it is predicted to take no longer; 0: no aim, only ``max_step_tokens``
    isolation_s        while one tenant uses most of the engine beside others that get all they ask for, its prompts are
                       cut so that a step is predicted to take no longer (``isolation.py``); 0, or ``inter_token_s`` and
                       more: never
    ageing_s           requests of one tenant that came within so many seconds are ordered by their cached prefix;
                       whoever came in an earlier span goes first, so waiting is bounded
    quantum_tokens     tenants whose service differs by no more than this (per unit of weight) are equals, and the order
                       between them is that of cached prefixes
    output_weight      service that one output token counts for; an uncached prompt token counts for 1
    arm                ``shared`` is Banyan; ``paged``, ``continuous`` and ``static`` are earlier systems, to compare
    """

    page_size: int
    pages: int
    max_running: int = 64
    max_step_tokens: int = 512
    max_context: int = 8192
    max_waiting: int = 1024
    max_waiting_per_tenant: int = 0
    inter_token_s: float = 0.0
    isolation_s: float = 0.0
    ageing_s: float = 2.0
    quantum_tokens: int = 512
    output_weight: float = 2.0
    arm: str = "shared"

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, "max_waiting_per_tenant"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < (name in _POSITIVE):
                raise ValueError(f"{name} must be at least {int(name in _POSITIVE)}, got {value}")
        for name in ("inter_token_s", "isolation_s", "ageing_s", "output_weight"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number from 0, got {value!r}")
        if self.max_step_tokens < self.max_running:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_running ({self.max_running}): "
                "every running request decodes a token in every step"
            )
        if self.arm not in ARMS:
            raise ValueError(f"arm must be one of {', '.join(ARMS)}, got {self.arm!r}")
