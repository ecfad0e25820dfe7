"""Starts the engine's process and tells it its options. Knows no event loop and waits for nothing.

Imports next to nothing: what follows in the server takes as long to import as half of what the engine does, and both
are to happen at the same time.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import backend
from backend.engine.options import EngineOptions
from backend.engine.wire import encode

SPIN_COUNT = "1000"  # of GNU OpenMP: a few microseconds


class EngineChild(NamedTuple):
    """``connection``: our end of the socket pair; the child ends by itself when it is closed."""

    process: "subprocess.Popen[bytes]"
    connection: socket.socket

    def end(self) -> None:
        """Kill it, unless it is gone; returns when it is."""
        self.process.kill()
        self.process.wait()


def spawn_engine(options: EngineOptions) -> EngineChild:
    """A child process that has its options and begins to load. Raises ``OSError``."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.engine.process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                stdin=subprocess.DEVNULL,
            )
        ours.sendall(encode(options))
    except OSError:
        ours.close()
        raise
    return EngineChild(process, ours)


def _environment() -> dict[str, str]:
    """The child's environment: ours, the packages' folder on its path, and how long OpenMP's threads spin.

    A thread that waits for others spins for some microseconds, then sleeps. GNU's runtime spins for milliseconds, and
    where other processes want the cores, whoever spins holds up whom it waits for (30 times slower, see docs/log.md).
    """
    root = str(Path(backend.__file__).resolve().parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    spinning = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": SPIN_COUNT}
    return {**spinning, **os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
