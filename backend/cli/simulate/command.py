"""``banyan simulate``: the command, its progress bar. Options, workloads, runs, report and picture are beside it."""

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backend.cli.simulate.grid import Common, Run, Variant, run_all, variants
from backend.cli.simulate.options import CONTEXT, MOONCAKE_CONTEXT, add_options
from backend.cli.simulate.picture import SUFFIXES, draw
from backend.cli.simulate.report import Report, print_report, to_json
from backend.cli.simulate.workloads import Workload, workload_from
from backend.errors import StartError
from backend.version import installed_version
from scheduler.isolation import PART_OF_AIM
from scheduler.machines import Machine
from scheduler.settings import Settings
from scheduler.simulate.recorder import Limits
from scheduler.trace import TraceError

_PIPED_WIDTH = 200  # whoever reads a pipe or a file wants all columns


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "simulate",
        help="predict an engine or a fleet under load, without a model",
        description="Run the engine's own scheduler on a virtual clock, with a cost model in place of the model. "
        "Options that take several values (A,B,C) are compared with each other.",
        epilog="Example, a plan for a fleet:  banyan simulate --cost h200-8b --replicas 8 --routing random,prefix "
        "--pages 8000,32000 --load 128,256,512 --ttft-limit 500 --tpot-limit 50 --picture plan.svg",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, print, write."""
    _check_outputs(arguments)
    machine: Machine = arguments.cost
    loads = sorted(arguments.load or ((1.0,) if arguments.mooncake else machine.loads))
    max_context = arguments.max_context or (MOONCAKE_CONTEXT if arguments.mooncake else CONTEXT)
    workload = workload_from(arguments, loads, max_context)
    pages = arguments.pages or [machine.kv_tokens // (arguments.page_size or 16)]
    common = _common(arguments, machine, max_context, pages)
    depths = [int(depth) for depth in arguments.depth]
    chosen = variants(arguments.arm, depths, pages, arguments.replicas, arguments.routing)
    runs = _run(chosen, loads, common, workload)
    report = Report(installed_version(), workload.name, workload.unit, workload.about, machine.name, common, runs)
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    print_report(report, console)
    if arguments.json is not None:
        arguments.json.write_bytes(to_json(report))
    if arguments.picture is not None:
        draw(report, arguments.picture)
    for path in (arguments.json, arguments.picture):
        if path is not None:
            console.print(f"written to {path}", markup=False, highlight=False)
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Before anything is computed."""
    for name in ("json", "picture"):
        path = getattr(arguments, name)
        if path is not None and not path.absolute().parent.is_dir():
            raise StartError(f"--{name}: there is no folder {path.absolute().parent}", param=name)
    if arguments.picture is not None and arguments.picture.suffix.lower() not in SUFFIXES:
        raise StartError(f"--picture: {arguments.picture} must end with {' or '.join(SUFFIXES)}", param="picture")


def _common(arguments: argparse.Namespace, machine: Machine, max_context: int, pages: list[int]) -> Common:
    """Raises ``StartError`` for sizes that do not go together."""
    isolation = arguments.inter_token * PART_OF_AIM if arguments.isolation is None else arguments.isolation
    try:
        settings = Settings(
            page_size=arguments.page_size or 16,
            pages=max(pages),
            max_running=arguments.max_running or machine.max_running,
            max_step_tokens=arguments.max_step_tokens or machine.max_step_tokens,
            max_context=max_context,
            max_waiting=1 << 40,
            inter_token_s=arguments.inter_token / 1000,
            isolation_s=isolation / 1000,
        )
    except (ValueError, TypeError) as error:
        raise StartError(str(error), param="engine") from error
    limits = {
        f"{name}_s": value / 1000
        for name in ("ttft", "tpot", "itl")
        if (value := getattr(arguments, f"{name}_limit")) is not None
    }
    host_s = arguments.host / 1000
    return Common(settings, machine.cost, host_s, arguments.queue, arguments.learn, Limits(**limits))


def _run(chosen: list[Variant], loads: list[float], common: Common, workload: Workload) -> list[Run]:
    """All runs under a progress bar. Raises ``StartError`` for a trace that cannot be read."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("run {task.completed:.0f} of {task.total:.0f}, {task.fields[requests]:,} requests"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    runs: list[Run] = []
    with progress:
        task = progress.add_task("simulating", total=len(chosen) * len(loads), requests=0)
        sent = 0

        def seen(more: int) -> None:
            nonlocal sent
            sent += more
            progress.update(task, requests=sent)

        try:
            for one in run_all(chosen, loads, common, workload, seen):
                runs.append(one)
                progress.advance(task)
        except TraceError as error:
            raise StartError(str(error), param="mooncake") from error
    return runs
