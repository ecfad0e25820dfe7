"""From arguments to a workload: what is sent at which load. Knows the names of the options, prints nothing."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from backend.errors import StartError
from scheduler.chat_trace import ChatShape, chat, public_prompts
from scheduler.trace import TracedRequest, read_mooncake, shared_prefixes

# A chat without --requests goes on for so many seconds, and for at least so many requests.
CHAT_SECONDS = 120
LEAST_REQUESTS = 200
LENGTHS = ("system_tokens", "question_tokens", "output_tokens", "output_sigma", "max_tokens", "tenants", "zipf", "seed")
CHAT_ONLY = ("public_prompts", "turns", "think_s", "burstiness", "question_sigma")
SHARED_ONLY = ("groups", "prompts_per_group")
SHAPES = (*LENGTHS, *CHAT_ONLY, *SHARED_ONLY)


class Workload(NamedTuple):
    """``trace``: the requests at a load. ``unit``: of the load. ``public``: system prompts that everybody may share.
    ``about``: what was asked for, for the report."""

    name: str
    unit: str
    trace: Callable[[float], Iterator[TracedRequest]]
    public: list[bytes]
    about: dict[str, Any]


def option_of(name: str) -> str:
    """How an option of a workload is written.

    >>> option_of("think_s")
    '--think'
    """
    return "--" + name.removesuffix("_s").replace("_", "-")


def workload_from(arguments: argparse.Namespace, loads: Sequence[float], max_context: int) -> Workload:
    """The workload that the options ask for; ``StartError`` for options that do not go together."""
    given = {name: value for name in SHAPES if (value := getattr(arguments, name)) is not None}
    if arguments.mooncake is not None:
        _only(given, (), "--mooncake")
        _above_zero(loads)
        return _mooncake(arguments.mooncake, arguments.requests)
    if arguments.shared_prefix:
        _only(given, (*LENGTHS, *SHARED_ONLY), "--shared-prefix")
        return _shared_prefix(given, arguments.requests)
    _only(given, (*LENGTHS, *CHAT_ONLY), "--chat")
    _above_zero(loads)
    return _chat(given, arguments.requests, max_context)


def _only(given: dict[str, Any], known: tuple[str, ...], workload: str) -> None:
    for name in given:
        if name not in known:
            raise StartError(f"{option_of(name)} is not an option of {workload}", param=option_of(name))


def _above_zero(loads: Sequence[float]) -> None:
    if min(loads) <= 0:
        raise StartError("--load must be above 0 (0, everything at once, is for --shared-prefix)", param="--load")


def _mooncake(path: Path, requests: int | None) -> Workload:
    def trace(load: float) -> Iterator[TracedRequest]:
        return read_mooncake(path, requests, load)

    return Workload(path.stem, "times the trace's speed", trace, [], {"trace": path.name, "requests": requests})


def _shared_prefix(given: dict[str, Any], requests: int | None) -> Workload:
    def trace(load: float) -> Iterator[TracedRequest]:
        return islice(shared_prefixes(rate=load, **given), requests)

    return Workload("generated shared prefixes", "requests/s", trace, [], {**given, "requests": requests})


def _chat(given: dict[str, Any], requests: int | None, max_context: int) -> Workload:
    def shape(load: float) -> ChatShape:
        count = requests or max(int(load * CHAT_SECONDS), LEAST_REQUESTS)
        return ChatShape(rate=load, requests=count, max_context=max_context, **given)

    def trace(load: float) -> Iterator[TracedRequest]:
        return chat(shape(load))

    try:
        public = public_prompts(shape(1.0))
    except ValueError as error:
        raise StartError(str(error), param="--chat") from error
    return Workload("chat", "requests/s", trace, public, {**given, "requests": requests})
