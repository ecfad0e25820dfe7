"""The GPU path on this machine: ceilings, correctness, kernels, whole steps and peers, in one table.

    python -m benchmarks.gpu OUT_FOLDER [--dry] [--only STAGE,...] [--peers FOLDER]

Runs from the source tree with torch, triton and numpy. Takes at most eight minutes: each stage has its own limit, and
one that fails, hangs, or takes the process or the device with it prints FAIL, and the others go on. OUT_FOLDER/gpu.json
holds versions, clocks, and every figure with its spread. Nothing else may run on the device.

``--dry`` goes through the same code on the CPU in Triton's interpreter, with tiny shapes; its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HANGS_S = 15.0  # past a stage's limit, when not even the alarm was noticed


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line. ``--began`` marks the process that works; the one without watches over it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--only", help="stages, separated by commas")
    parser.add_argument("--peers", default="", help="a folder with other implementations; see peers.py")
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def work(options: argparse.Namespace) -> bool:
    """The stages, in this process."""
    if options.dry:
        # Read when kernels are decorated, so before any import of them.
        os.environ |= {"TRITON_INTERPRET": "1", "BANYAN_TRITON": "1", "BANYAN_NATIVE": "0"}
    import torch

    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("no CUDA device (--dry runs without)")
    from benchmarks.gpu.run import Run

    torch.manual_seed(0)
    with torch.inference_mode():
        run = Run(options.out, options.began, options.dry, options.peers)
        return run.go(options.only.split(",") if options.only else [])


def watch(options: argparse.Namespace) -> bool:
    """Start the process that works, and another with the rest of the stages where it ends before its time."""
    from benchmarks.gpu.stage import NAMES

    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("gpu.json", "running.json"):
        (options.out / name).unlink(missing_ok=True)
    rest = options.only.split(",") if options.only else list(NAMES)
    if unknown := set(rest) - set(NAMES):
        raise SystemExit(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rest = [name for name in NAMES if name in rest]
    began = time.time()
    while True:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", str(options.out), "--began", str(began)]
        command += ["--only", ",".join(rest), "--peers", options.peers, *(["--dry"] if options.dry else [])]
        process = subprocess.Popen(command)
        hung = _wait(process, options.out / "running.json")
        kept = _read(options.out / "gpu.json")
        if not kept:  # it never began
            return False
        if not (options.out / "running.json").exists():  # the table is printed
            return process.returncode == 0
        running = _read(options.out / "running.json").get("stage")
        if running:
            how = "hangs" if hung else f"ended the process ({process.returncode})"
            kept["stages"].append({"name": running, "seconds": 0.0, "outcome": f"FAIL {how}"})
            print(f"[{time.time() - began:5.0f} s] {running}: FAIL {how}", flush=True)
            (options.out / "gpu.json").write_text(json.dumps(kept, indent=1) + "\n")
            (options.out / "running.json").write_text("{}")
        done = {stage["name"] for stage in kept["stages"]}
        left = [name for name in rest if name not in done]
        if left == rest:
            return False
        rest = left


def _wait(process: "subprocess.Popen[bytes]", mark: Path) -> bool:
    """Until the process ends; ends it, and says True, where it stays in a stage past its limit."""
    while process.poll() is None:
        time.sleep(0.2)
        if time.time() > _read(mark).get("until", float("inf")) + HANGS_S:
            process.kill()
            process.wait()
            return True
    return False


def _read(file: Path) -> dict[str, Any]:
    """What it holds; nothing where it is not there or half written."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    chosen = options_of(sys.argv[1:])
    sys.exit(not (work(chosen) if chosen.began else watch(chosen)))
