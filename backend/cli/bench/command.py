"""``banyan bench``: arguments, progress bar, passes. What draws, sends, computes and prints is beside it."""

import argparse
import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from backend.cli.bench.completions import CompletionsTarget
from backend.cli.bench.drive import Drive, describe, tokens_per_word
from backend.cli.bench.report import Pass, Result, print_table, to_json
from backend.cli.bench.responses import ResponsesTarget
from backend.cli.bench.statistics import Limits, Observation, summarize
from backend.cli.bench.target import Target
from backend.cli.bench.workload import Conversation, Shape, generate
from backend.errors import StartError
from backend.version import installed_version

_DEFAULT = Shape()
# name, type, least value, help; the default is that of Shape
SHAPE_ARGUMENTS: tuple[tuple[str, Callable[[str], Any], float, str], ...] = (
    ("tenants", int, 1, "number of system prompts; each conversation uses one of them"),
    ("system-tokens", int, 1, "length of a system prompt in tokens"),
    ("conversations", int, 1, "number of conversations"),
    ("turns", int, 1, "turns in each conversation"),
    ("user-median", float, 1, "median length of a user message in tokens (lognormal)"),
    ("user-sigma", float, 0, "sigma of the logarithm of its length"),
    ("user-min", int, 1, "shortest user message in tokens"),
    ("user-max", int, 1, "longest user message in tokens"),
    ("output-median", float, 1, "median of the most tokens an answer may have (lognormal, heavy-tailed)"),
    ("output-sigma", float, 0, "sigma of its logarithm"),
    ("output-min", int, 1, "least of these limits in tokens"),
    ("output-max", int, 1, "largest of these limits in tokens"),
    ("rate", float, 0, "conversations that start per second (Poisson); 0: --concurrency at a time"),
    ("concurrency", int, 1, "conversations open at a time, when there is no --rate"),
    ("seed", int, 0, "decides lengths, tenants and arrivals"),
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "bench",
        help="measure a server under load",
        description="Send a multi-tenant chat workload to a server and measure what its users would see. Lengths are "
        "approximate (words); what is reported is counted by the server's usage.",
        epilog="Exit code 1 when a request failed. TTFT: first content - send. TPOT: (latency - TTFT) / "
        "(output tokens - 1). ITL: gaps between tokens, pooled. Goodput: requests per second within every limit; "
        "attainment: their share of the requests sent.",
    )
    parser.add_argument(
        "--url",
        default="ws://127.0.0.1:8000",
        help="ws://HOST:PORT for our WebSocket, http://HOST:PORT for an OpenAI-compatible /v1/chat/completions "
        "(default: %(default)s)",
    )
    parser.add_argument("--model", help="model name to send (default: none over WebSocket, 'default' over HTTP)")
    parser.add_argument("--api-key", metavar="KEY", help="sent as bearer token (default: none)")
    for name, kind, least, text in SHAPE_ARGUMENTS:
        default = getattr(_DEFAULT, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=_at_least(kind, least), default=default, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--text-seed",
        type=int,
        metavar="N",
        help="decides the words (default: drawn, and reported, so that no cache knows them)",
    )
    parser.add_argument(
        "--tokens-per-word",
        type=_at_least(float, 0.05),
        metavar="X",
        help="tokens the server makes of one word (default: asked by two short requests)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="sampling temperature (default: %(default)s, greedy)",
    )
    parser.add_argument(
        "--ignore-eos",
        action="store_true",
        help="ask for answers of exactly the drawn length (a field many servers know)",
    )
    parser.add_argument(
        "--extra",
        type=_json_object,
        default={},
        metavar="JSON",
        help="object merged into every request (default: none)",
    )
    parser.add_argument(
        "--passes",
        type=_at_least(int, 1),
        default=1,
        metavar="N",
        help="times the same workload is sent: the first is cold, the others warm (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=_at_least(float, 0.001),
        default=600.0,
        metavar="SECONDS",
        help="most seconds for one request (default: %(default)s)",
    )
    for name in ("ttft", "tpot", "latency"):
        parser.add_argument(
            f"--{name}-limit",
            type=_at_least(float, 0),
            metavar="MS",
            help=f"a good request's most {name} in ms, for goodput (default: no limit)",
        )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON (default: table only)")
    parser.add_argument("--requests", action="store_true", help="with every single request in the JSON")
    parser.set_defaults(run=run)


def _at_least(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value < 1e12:  # also false for NaN
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least} on")
        return value

    return parse


def _json_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"not a JSON object: {error}") from None


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; 1 when a request failed."""
    shape = shape_from(arguments)
    if arguments.out is not None and not arguments.out.absolute().parent.is_dir():
        raise StartError(f"--out: there is no folder {arguments.out.absolute().parent}", param="out")
    console = Console()
    result = asyncio.run(measure(arguments, shape, Console(stderr=True)))
    print_table(result, console)
    if arguments.out is not None:
        arguments.out.write_bytes(to_json(result))
        console.print(f"written to {arguments.out}", markup=False, highlight=False)
    return 1 if result.interrupted or any(one.summary.failed for one in result.passes) else 0


def shape_from(arguments: argparse.Namespace) -> Shape:
    """The workload's shape; raises ``StartError`` when a shortest length is above the longest."""
    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name, *_ in SHAPE_ARGUMENTS}
    for what in ("user", "output"):
        if given[f"{what}_min"] > given[f"{what}_max"]:
            raise StartError(f"--{what}-min is above --{what}-max", param=f"{what}-min")
    text_seed = secrets.randbelow(10**9) if arguments.text_seed is None else arguments.text_seed
    return Shape(**given, text_seed=text_seed, tokens_per_word=arguments.tokens_per_word or 1.0)


def make_target(arguments: argparse.Namespace) -> tuple[Target, dict[str, Any]]:
    """The target of ``--url``, and the fields merged into each request. Raises ``StartError`` for other addresses."""
    extra: dict[str, Any] = {"temperature": arguments.temperature}
    if arguments.ignore_eos:
        extra["ignore_eos"] = True
    scheme = arguments.url.partition("://")[0]
    if scheme in ("ws", "wss"):
        extra |= ({"model": arguments.model} if arguments.model else {}) | arguments.extra
        return ResponsesTarget(arguments.url, arguments.api_key, extra), extra
    if scheme in ("http", "https"):
        extra |= {"model": arguments.model or "default"} | arguments.extra
        return CompletionsTarget(arguments.url, arguments.api_key, extra), extra
    raise StartError(
        f"--url {arguments.url!r}: an address with ws://, wss://, http:// or https:// is expected", param="url"
    )


async def measure(arguments: argparse.Namespace, shape: Shape, console: Console) -> Result:
    """Calibrate, then play the passes; interrupted, return what there is. ``StartError`` when nobody answers."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    limits = Limits(arguments.ttft_limit, arguments.tpot_limit, arguments.latency_limit)
    target, body = make_target(arguments)
    passes: list[Pass] = []
    interrupted = False
    try:
        if arguments.tokens_per_word is None:
            shape = await calibrate(target, shape, arguments.url, console)
        conversations = generate(shape)
        for number in range(arguments.passes):
            drive, interrupted = await play(target, conversations, shape, arguments.timeout, console)
            summary = summarize(drive.seen, limits, shape.conversations * shape.turns)
            passes.append(Pass(number == 0, summary, drive.seen if arguments.requests else None))
            if interrupted:
                break
    finally:
        await target.close()
    return Result(installed_version(), started, arguments.url, body, shape, limits, interrupted, passes)


async def calibrate(target: Target, shape: Shape, url: str, console: Console) -> Shape:
    """The shape with its lengths written for the server's tokenizer. ``StartError`` when nobody answers."""
    try:
        measured = await tokens_per_word(target)
    except Exception as error:
        raise StartError(f"{url} does not answer: {describe(error)}", code="target_failed", param="url") from error
    if measured is None:
        console.print(
            "the server gives no usage: one token per word is assumed, and frames are counted", style="yellow"
        )
        return shape
    return msgspec.structs.replace(shape, tokens_per_word=round(measured, 4))


async def play(
    target: Target, conversations: list[Conversation], shape: Shape, timeout_s: float, console: Console
) -> tuple[Drive, bool]:
    """One pass under a progress bar; also whether it was interrupted."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task("requests", total=shape.conversations * shape.turns, note="")
        tokens = failed = 0

        def on_ended(seen: Observation) -> None:
            nonlocal tokens, failed
            tokens, failed = tokens + seen.tokens, failed + (not seen.ok)
            progress.update(task, advance=1, note=f"{tokens:,} tokens, {failed} failed")

        drive = Drive(target, timeout_s, on_ended)
        try:
            await drive.run(conversations, shape)
        except asyncio.CancelledError:  # Ctrl-C: report what there is
            return drive, True
    return drive, False
