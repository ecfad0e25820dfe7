"""How long ``banyan serve`` takes from its start until ``/ready`` says so: ``python -m benchmarks.start``.

The bundled model, no option but port and data folder. The first run makes the database, fills the disk cache and is
listed apart.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

_GIVE_UP_SECONDS = 60.0
_POLL_SECONDS = 0.01


def start_once(data_dir: str) -> float:
    """Seconds from the start of the process to the first 200 of ``/ready``. Raises ``RuntimeError``: it never came."""
    port = _free_port()
    command = [sys.executable, "-m", "backend.cli.main", "serve", "--port", str(port), "--data-dir", data_dir]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - began > _GIVE_UP_SECONDS:
                raise RuntimeError(f"it did not start, see above (exit code {process.poll()})")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(port: int) -> bool:
    """The port listens long before it is served: one request waits for that, many would be work for the server."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=_GIVE_UP_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="starts that are counted (default: 7)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as data_dir:
        first = start_once(data_dir)
        each = [start_once(data_dir) for _ in range(arguments.runs)]
    shown = {"first_s": round(first, 2), "median_s": round(statistics.median(each), 2)}
    print(json.dumps({**shown, "each_s": [round(one, 2) for one in each]}))


if __name__ == "__main__":
    main()
