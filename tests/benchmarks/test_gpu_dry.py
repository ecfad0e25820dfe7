"""The GPU benchmark goes through all of its code without a GPU, so that none of it fails for the first time on one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.stage import NAMES, STAGES

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {target for stage in STAGES for target in stage.targets}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run(out: Path, *options: str) -> tuple[str, dict]:
    """What a dry run prints, and its file."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", str(out), "--dry", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((out / "gpu.json").read_text())


def test_every_stage_ends_and_every_target_has_a_row(tmp_path) -> None:
    printed, kept = run(tmp_path)
    assert [(stage["name"], stage["outcome"]) for stage in kept["stages"]] == [(name, "ok") for name in NAMES]
    assert len(printed) < 12_000
    assert {row["id"] for row in kept["rows"]} - {""} == TARGETS == {f"T{n}" for n in range(1, 23)}
    numerics = [row for row in kept["rows"] if row["id"] == "T22"]
    assert len(numerics) > 25 and all(row["passed"] for row in numerics)
    assert {"torch", "triton", "commit", "device", "ceilings"} <= set(kept)


def test_some_stages_only(tmp_path) -> None:
    _, kept = run(tmp_path, "--only", "plan")
    assert [stage["name"] for stage in kept["stages"]] == ["plan"]
