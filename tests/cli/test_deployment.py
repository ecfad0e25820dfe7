"""The files for services and containers: what they name is there, and systemd understands its unit."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backend import config
from backend.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
UNIT, CONTAINER = DEPLOY / "banyan.service", DEPLOY / "Containerfile"


def instructions(text: str) -> list[tuple[str, str]]:
    """Of a Containerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def options(command: list[str], environment: dict[str, str]) -> config.ServeOptions:
    """What ``banyan serve`` makes of a command line; the program's name and its options exist."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(command[0]).name in scripts
    parsed = build_parser(command[1]).parse_args(command[1:])
    return config.resolve(vars(parsed), environment)


def unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read(UNIT)
    return read


def test_the_unit_starts_what_exists_and_lets_it_drain() -> None:
    service = unit()["Service"]
    settled = options(shlex.split(service["ExecStart"]), {})
    assert str(settled.data_dir) == f"/var/lib/{service['StateDirectory']}"
    # The engine's process must not get the signal that asks the server to drain.
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert int(service["TimeoutStopSec"]) > settled.drain_seconds + 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    program = unit()["Service"]["ExecStart"].split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_starts_what_exists_from_what_is_there() -> None:
    text = CONTAINER.read_text()
    steps = instructions(text)
    environment = dict(value.split("=", 1) for name, value in steps if name == "ENV")
    command = json.loads(next(value for name, value in steps if name == "CMD"))
    settled = options(command, environment)
    assert [str(settled.data_dir)] == [value for name, value in steps if name == "VOLUME"]
    assert [str(settled.port)] == [value for name, value in steps if name == "EXPOSE"]
    assert not config.is_loopback(settled.host)
    assert [value for name, value in steps if name == "USER"] == ["banyan"]
    assert f"--file {CONTAINER.relative_to(ROOT)}" in text


def test_the_image_is_built_from_all_that_the_wheel_needs() -> None:
    """And from nothing that ``git`` does not know."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for needed in (*packages, "web", "pyproject.toml", "hatch_build.py", "LICENSE", project["project"]["readme"]):
        assert needed not in ignored and (ROOT / needed).exists()
    own = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    for name in (".venv", "web/dist", "node_modules", "__pycache__", "kernels/cpu/libbanyan_cpu.*"):
        assert name in own and any(re.fullmatch(rf"(\*\*/)?{re.escape(name)}", line) for line in ignored)
