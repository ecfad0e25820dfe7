"""The options of ``banyan simulate``: names, types, defaults and help. Decides nothing."""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backend.cli.simulate.workloads import option_of
from scheduler.arms import ARMS
from scheduler.chat_trace import ChatShape
from scheduler.cost import CostModel
from scheduler.isolation import PART_OF_AIM
from scheduler.machines import MACHINES, Machine
from scheduler.scheduler import DEPTH
from scheduler.simulate.routing import ROUTERS
from scheduler.trace import shared_prefixes

T = TypeVar("T")
CONTEXT, MOONCAKE_CONTEXT = 8192, 131_072
_CHAT = ChatShape()
_SHARED = {name: option.default for name, option in inspect.signature(shared_prefixes).parameters.items()}


def _two(name: str) -> str:
    """The defaults of a chat and of shared prefixes."""
    return f"{getattr(_CHAT, name):g}; {_SHARED[name]:g}"


# name in ChatShape and shared_prefixes, type, least value, help
WORKLOAD_ARGUMENTS: tuple[tuple[str, Callable[[str], Any], float, str], ...] = (
    ("system_tokens", int, 0, f"length of a system prompt (default: {_two('system_tokens')})"),
    ("question_tokens", int, 1, f"length of a question, in a chat the median (default: {_two('question_tokens')})"),
    ("question_sigma", float, 0, f"chat: sigma of its logarithm (default: {_CHAT.question_sigma})"),
    ("output_tokens", int, 1, f"median length of an answer (default: {_two('output_tokens')})"),
    ("output_sigma", float, 0, f"sigma of its logarithm (default: {_two('output_sigma')})"),
    ("max_tokens", int, 1, f"longest answer, all that the scheduler knows (default: {_CHAT.max_tokens}; 8 medians)"),
    ("tenants", int, 1, f"number of tenants (default: {_CHAT.tenants}; each group is one)"),
    ("zipf", float, 0, f"exponent of the popularity of tenants or groups (default: {_two('zipf')})"),
    ("public_prompts", int, 0, "chat: so many public system prompts, shared by tenants (default: each has its own)"),
    ("turns", float, 1, f"chat: mean number of turns of a conversation (default: {_CHAT.turns})"),
    ("think_s", float, 0, f"chat: mean seconds between turns (default: {_CHAT.think_s:g})"),
    ("burstiness", float, 0.01, "chat: variation of the times between conversations; 1 is Poisson (default: 1)"),
    ("groups", int, 1, f"shared prefixes: number of groups, each with a system prompt (default: {_SHARED['groups']})"),
    ("prompts_per_group", int, 1, f"shared prefixes: questions to each (default: {_SHARED['prompts_per_group']})"),
    ("seed", int, 0, "decides lengths, tenants and arrivals (default: 0)"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them all."""
    _add_workload(parser)
    _add_engine(parser)
    _add_fleet(parser)
    _add_limits(parser)
    _add_output(parser)


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload", "Two defaults: of a chat; of shared prefixes.")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--chat", action="store_true", help="tenants with system prompts, conversations (the default)")
    which.add_argument("--shared-prefix", action="store_true", help="SGLang's generated shared prefixes")
    which.add_argument("--mooncake", type=Path, metavar="FILE", help="replay a Mooncake trace")
    group.add_argument(
        "--load",
        type=_several(_at_least(float, 0)),
        metavar="X[,X]",
        help="requests per second, of a trace how many times its speed (default: by --cost; a trace 1)",
    )
    group.add_argument(
        "--requests", type=_at_least(int, 1), metavar="N", help="at most (default: two minutes of a chat, else all)"
    )
    for name, kind, least, text in WORKLOAD_ARGUMENTS:
        group.add_argument(option_of(name), dest=name, type=_at_least(kind, least), metavar="X", help=text)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--cost",
        type=_machine,
        default=MACHINES["cpu-135m"],
        metavar="NAME|a,b,c,d",
        help=f"{', '.join(MACHINES)}, or seconds of a step, per new token, per token read, per pair of tokens in a "
        "chunk (default: cpu-135m)",
    )
    group.add_argument(
        "--arm",
        type=_several(_one_of(ARMS)),
        default=["shared"],
        metavar="A[,A]",
        help=f"scheduler and cache: {', '.join(ARMS)} (default: shared, which is Banyan)",
    )
    for name, text in (
        ("page-size", "tokens per KV page (default: 16)"),
        ("max-running", "most requests in one step (default: by --cost)"),
        ("max-step-tokens", "most tokens in one step (default: by --cost)"),
        ("max-context", f"most tokens of prompt and output (default: {CONTEXT}, a trace {MOONCAKE_CONTEXT})"),
    ):
        group.add_argument(f"--{name}", type=_at_least(int, 1), metavar="N", help=text)
    group.add_argument(
        "--pages",
        type=_several(_at_least(int, 1)),
        metavar="N[,N]",
        help="KV pages of each engine (default: by --cost)",
    )
    group.add_argument(
        "--inter-token",
        type=_at_least(float, 0),
        default=0.0,
        metavar="MS",
        help="aim for the gap between tokens: cuts prompts so that steps stay below (default: none)",
    )
    group.add_argument(
        "--isolation",
        type=_at_least(float, 0),
        metavar="MS",
        help="longest step of a loud tenant's prompts beside quiet ones; as --inter-token: off "
        f"(default: {PART_OF_AIM:g} of --inter-token)",
    )
    group.add_argument(
        "--queue", type=_at_least(float, 0), default=0.0, metavar="SECONDS", help="longest wait to start (default: any)"
    )
    group.add_argument(
        "--depth",
        type=_several(_one_of({str(depth): None for depth in range(1, DEPTH + 1)})),
        default=[str(DEPTH)],
        metavar="D[,D]",
        help=f"steps in flight: 1 waits for each step's tokens, 2 plans ahead (default: {DEPTH})",
    )
    group.add_argument(
        "--host",
        type=_at_least(float, 0),
        default=0.4,
        metavar="MS",
        help="planning and handling the outcome of a step (default: %(default)s, about what 256 rows take)",
    )
    group.add_argument(
        "--learn", action="store_true", help="the scheduler is not told --cost and learns it, as in a real engine"
    )


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    fleet = parser.add_argument_group("fleet")
    fleet.add_argument(
        "--replicas", type=_several(_at_least(int, 1)), default=[1], metavar="N[,N]", help="engines (default: 1)"
    )
    fleet.add_argument(
        "--routing",
        type=_several(_one_of(ROUTERS)),
        default=["prefix"],
        metavar="P[,P]",
        help=f"how requests find a replica: {', '.join(ROUTERS)} (default: prefix)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits of a good request, for goodput (default: none)")
    for name, text in (
        ("ttft", "time to first token"),
        ("tpot", "mean gap between its tokens"),
        ("itl", "99th percentile of its gaps"),
    ):
        limits.add_argument(f"--{name}-limit", type=_at_least(float, 0), metavar="MS", help=text)


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    output.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw goodput and p99 TTFT against load (.svg, .png)"
    )


def _at_least(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value < 1e12:  # also false for NaN
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least:g} on")
        return value

    return parse


def _one_of(names: dict[str, Any]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def _several(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    def parse(text: str) -> list[T]:
        try:
            return list(dict.fromkeys(one(part.strip()) for part in text.split(",")))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between them are expected") from None

    return parse


def _machine(text: str) -> Machine:
    if text in MACHINES:
        return MACHINES[text]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(0 <= number < 1e6 for number in numbers) or not numbers[0] + numbers[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(MACHINES)} nor four numbers a,b,c,d")
    a, b, c, d = numbers
    return Machine("a machine of your own", CostModel(a, b, c, d), 400_000, 256, 2048, (1.0,))
