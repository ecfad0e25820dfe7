"""Variants and loads: which simulations a command line asks for, and running one after another."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from backend.cli.simulate.workloads import Workload
from scheduler.cost import CostModel
from scheduler.settings import Settings
from scheduler.simulate.figures import Figures
from scheduler.simulate.fleet import simulate
from scheduler.simulate.recorder import Limits
from scheduler.simulate.replica import Engine
from scheduler.trace import TracedRequest


class Variant(msgspec.Struct, frozen=True):
    """What is compared. ``pages``: of each replica."""

    arm: str
    depth: int
    pages: int
    replicas: int
    routing: str


class Run(msgspec.Struct, frozen=True):
    """One simulation. ``took_s``: how long it took here."""

    variant: Variant
    load: float
    took_s: float
    figures: Figures


class Common(msgspec.Struct, frozen=True):
    """What all runs have in common; ``settings`` but for arm and pages. In JSON a limit that is not set is null."""

    settings: Settings
    cost: CostModel
    host_s: float
    queue_s: float
    learns: bool
    limits: Limits


def variants(
    arms: Sequence[str], depths: Sequence[int], pages: Sequence[int], replicas: Sequence[int], routings: Sequence[str]
) -> list[Variant]:
    """All combinations; where there is one replica the routing makes no difference, and is left out."""
    found = (
        Variant(arm, depth, count, size, routing if size > 1 else "")
        for arm, depth, count, size, routing in itertools.product(arms, depths, pages, replicas, routings)
    )
    return list(dict.fromkeys(found))


def run_all(
    chosen: Sequence[Variant], loads: Sequence[float], common: Common, workload: Workload, seen: Callable[[int], None]
) -> Iterator[Run]:
    """Each variant at each load; ``seen`` is told how many more requests have arrived."""
    for variant, load in itertools.product(chosen, loads):
        settings = msgspec.structs.replace(common.settings, arm=variant.arm, pages=variant.pages)
        engine = Engine(
            settings, common.cost, variant.depth, common.host_s, queue_s=common.queue_s, learns=common.learns
        )
        began = time.perf_counter()
        figures = simulate(
            _counted(workload.trace(load), seen),
            engine,
            variant.replicas,
            variant.routing or "round-robin",
            common.limits,
            workload.public,
        )
        yield Run(variant, load, round(time.perf_counter() - began, 3), figures)


def _counted(trace: Iterable[TracedRequest], seen: Callable[[int], None], every: int = 256) -> Iterator[TracedRequest]:
    number = 0
    for number, traced in enumerate(trace, 1):
        yield traced
        if number % every == 0:
            seen(every)
    seen(number % every)
