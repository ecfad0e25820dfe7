"""A run of some stages in this process: limits, failures, and the file that is written as results come."""

import json
import os
import platform
import signal
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

import numpy
import torch
import triton

from benchmarks.gpu.device import DryGpu, Gpu
from benchmarks.gpu.stage import STAGES, TOTAL_S, Bench, Stage
from benchmarks.gpu.table import Table
from kernels.triton import fixed_plan

MOST_CHARACTERS = 10400  # of the table; stages print a line each before it


class OutOfTime(BaseException):
    """A stage took longer than it may. Not an ``Exception``: what guards single cases must not catch it."""


class Run:
    """Goes on with the file in ``out`` if there is one of the same beginning."""

    def __init__(self, out: Path, began: float, dry: bool, peers: str = "") -> None:
        self.began, self.dry = began, dry
        self.file, self.mark = out / "gpu.json", out / "running.json"
        if dry:
            fixed_plan.SPARE = 0  # each program that only leaves takes its time in the interpreter
        self.bench = Bench(DryGpu() if dry else Gpu(), Table(), peers)
        self.ended: list[dict[str, Any]] = []
        if self.file.exists():
            kept = json.loads(self.file.read_text())
            if kept["began"] == began:
                self.bench.table.take(kept)
                self.ended = kept["stages"]
        self.mark.write_text("{}")
        self.facts = {"began": began, "dry": dry, **_versions(), "device": self.bench.gpu.facts()}
        self.bench.table.changed = self._save
        if not self.ended:
            print(json.dumps({key: self.facts[key] for key in ("commit", "torch", "triton", "device")}), flush=True)

    def go(self, names: list[str]) -> bool:
        """The stages in turn, then the table; whether all of the run ended well."""
        for stage in STAGES:
            if stage.name not in names:
                continue
            left = TOTAL_S - (time.time() - self.began)
            if left < 5 and not self.dry:
                self.end(stage.name, 0.0, "FAIL no time left")
                continue
            limit = stage.most_s * 4 if self.dry else min(stage.most_s, left)
            self.mark.write_text(json.dumps({"stage": stage.name, "until": time.time() + limit}))
            began = time.perf_counter()
            outcome = self._stage(stage, limit)
            self.end(stage.name, time.perf_counter() - began, outcome)
            # Where the device is lost this raises, and the stages that are left get a new process.
            self.bench.gpu.synchronize()
            self.bench.gpu.release()
        self.mark.unlink(missing_ok=True)
        print(self.bench.table.printed(MOST_CHARACTERS), flush=True)
        return all(not stage["outcome"].startswith("FAIL") for stage in self.ended)

    def end(self, name: str, seconds: float, outcome: str) -> None:
        """Note how a stage ended."""
        self.mark.write_text("{}")
        self.ended.append({"name": name, "seconds": round(seconds, 2), "outcome": outcome})
        print(f"[{time.time() - self.began:5.0f} s] {name}: {outcome} ({seconds:.1f} s)", flush=True)
        self._save()

    def _stage(self, stage: Stage, limit: float) -> str:
        def stop(*_: object) -> None:
            raise OutOfTime

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            self.bench.gpu.warm_up(0.3)
            stage.run(self.bench)
            self.bench.gpu.synchronize()
            return "ok"
        except OutOfTime:
            return f"FAIL out of time after {limit:.0f} s"
        except Exception as error:  # the other stages are worth having
            where = traceback.extract_tb(error.__traceback__)[-1]
            words = " ".join(str(error).split())[:160]
            return f"FAIL {type(error).__name__} {words} ({Path(where.filename).name}:{where.lineno})"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _save(self) -> None:
        kept = {**self.facts, "stages": self.ended, **self.bench.table.as_data()}
        # Whole or not at all: the process may be ended at any time.
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(kept, indent=1) + "\n")
        os.replace(part, self.file)


def _versions() -> dict[str, Any]:
    try:
        command = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "numpy": numpy.__version__,
    }
