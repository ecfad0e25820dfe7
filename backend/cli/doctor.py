"""``banyan doctor``: looks at what ``banyan serve`` with the same options would need, and says what to do about it.

Changes nothing and downloads nothing. Knows what can be looked at from outside; the engine's part is asked of a process
of its own (``backend.engine.probe``).
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backend import config
from backend.cli import checkpoint
from backend.cli.serve import add_options, take_port
from backend.errors import BanyanError, StartError
from backend.server.static import BUILT_UI
from backend.tenants.database import Database, database_url
from backend.tenants.directory import Directory
from backend.tenants.schema import HEAD
from backend.version import installed_version

if sys.platform != "win32":
    import resource

FILES = 4096
"""Open files that some thousands of sockets need."""
_PROBE_SECONDS = 120


class Finding(NamedTuple):
    """One thing that was looked at. ``state``: ok, note (works, but) or bad; ``advice``: what to do, when there is."""

    what: str
    state: str
    said: str
    advice: str = ""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command; it takes the options of ``banyan serve``."""
    parser = commands.add_parser(
        "doctor",
        help="check that the server could start here",
        description="Check device, memory, model, database, port and page for `banyan serve` with the same options.",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 when nothing is bad."""
    options = config.resolve(vars(arguments), config_file=arguments.config)
    findings = []
    for finding in examine(options):
        findings.append(finding)
        mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding.state]
        print(f"{mark}  {finding.what}: {finding.said}", flush=True)
        if finding.advice:
            print(f"        -> {finding.advice}")
    bad = sum(finding.state == "bad" for finding in findings)
    print(f"\n{bad} of {len(findings)} would keep the server from starting." if bad else "\nThe server can start.")
    return 1 if bad else 0


def examine(options: config.ServeOptions) -> Iterator[Finding]:
    """Each thing that ``serve`` needs, cheapest first."""
    yield Finding("banyan", "ok", installed_version())
    yield _files()
    yield _page()
    yield _port(options)
    yield _data_folder(options.data_dir)
    yield from _database(options)
    folder, finding = _model(options)
    found = _probe(folder, options.dtype)
    yield from _machine(found)
    yield finding
    if "model" in found or "problem" in found:
        yield _room(found, options)


def _files() -> Finding:
    if sys.platform == "win32":
        return Finding("open files", "ok", "no limit is known")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at most")
    return Finding(
        "open files", "note", f"{soft:,} at most, each socket is one", f"ulimit -n {FILES}, or LimitNOFILE= in the unit"
    )


def _page() -> Finding:
    if (BUILT_UI / "index.html").is_file():
        return Finding("web page", "ok", "built")
    return Finding("web page", "note", "not built; the API works without it", "make ui")


def _port(options: config.ServeOptions) -> Finding:
    try:
        with contextlib.closing(take_port(options.host, options.port)):
            return Finding("port", "ok", f"{options.host} port {options.port} is free")
    except StartError as error:
        return Finding("port", "bad", error.message)


def _data_folder(folder: Path) -> Finding:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("data folder", "ok", f"{folder}" + ("" if nearest == folder else " (will be made)"))
    return Finding(
        "data folder", "note", f"{folder} cannot be written: nothing is kept, and nothing downloaded", "--data-dir"
    )


def _database(options: config.ServeOptions) -> Iterator[Finding]:
    try:
        url = database_url(options.database, options.data_dir)
    except StartError as error:
        yield Finding("database", "bad", error.message)
        return
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        yield Finding("database", "ok", f"{url.database} (will be made)")
        live = 0
    else:
        database = Database(url)
        try:
            version = database.version()
            live = Directory(database).live_keys() if version == HEAD else 0
            known = {"": "no tables yet (will be made)", HEAD: "up to date"}.get(version, f"tables at {version}")
            yield Finding("database", "ok", f"{database.shown}: {known}, {live} live keys")
        except BanyanError as error:
            yield Finding("database", "bad", f"{database.shown}: {error.message}", "is it running, is the URL right?")
            return
        finally:
            database.close()
    try:
        config.refuse_public_address(options.host, live)
    except StartError as error:
        yield Finding("address", "bad", error.message)


def _model(options: config.ServeOptions) -> tuple[Path | None, Finding]:
    if checkpoint.is_download(options.model):
        return None, Finding("model", "note", f"{options.model} comes from the hub when the server starts")
    try:
        found = checkpoint.locate(options.model, options.data_dir)
    except StartError as error:
        return None, Finding("model", "bad", error.message)
    return found.folder, Finding("model", "ok", f"{found.name} in {found.folder}")


def _probe(folder: Path | None, dtype: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "backend.engine.probe", *([] if folder is None else [str(folder), dtype])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS)
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    return {"broken": said[:300]}


def _machine(found: dict[str, Any]) -> Iterator[Finding]:
    if "broken" in found:
        yield Finding("torch", "bad", f"cannot be used: {found['broken']}", "reinstall torch for this machine")
        return
    yield Finding("python", "ok", f"{found['python']}, torch {found['torch']}")
    yield Finding("device", "ok", f"{found['device']}, {found['free_bytes'] / 1e9:,.1f} GB free")
    if found["cuda"]:
        state = "ok" if found["triton"] else "note"
        yield Finding(
            "kernels",
            state,
            "Triton" if found["triton"] else "torch's only",
            "" if found["triton"] else "pip install triton",
        )
    elif found["cpu_library"]:
        yield Finding("kernels", "ok", "the C++ library")
    else:
        yield Finding(
            "kernels",
            "note",
            "torch's only, several times slower",
            "install a C++ compiler, then make setup or pip install",
        )


def _room(found: dict[str, Any], options: config.ServeOptions) -> Finding:
    if "problem" in found:
        return Finding("checkpoint", "bad", found["problem"])
    model = found["model"]
    need, free = model["bytes"] + options.kv_memory, found["free_bytes"]
    said = (
        f"{model['architecture']}, {model['parameters'] / 1e6:,.1f} M parameters in {model['dtype']}: "
        f"{need / 1e9:,.2f} GB needed, {free / 1e9:,.1f} GB free"
    )
    if not model["weights"]:
        return Finding(
            "checkpoint", "bad", "no .safetensors file lies beside config.json", "other formats are not read"
        )
    if need > free:
        return Finding("checkpoint", "bad", said, "a smaller model, --weights int8, or less --kv-memory")
    return Finding("checkpoint", "ok", said)
