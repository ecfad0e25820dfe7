"""A PostgreSQL server of the tests' own: in a temporary folder, on a socket there, gone with the fixture.

Knows where distributions put the programs. ``initdb`` refuses to run as root; then an unprivileged user is taken.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

USER = "banyan"
PATIENCE_SECONDS = 60


def find_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None when PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    if found is not None:
        folders.insert(0, Path(found).resolve().parent)
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


class Postgres:
    """``start`` and ``stop`` may be called again: the data stays."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as: dict[str, Any] = _unprivileged() if os.geteuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="banyan-pg-"))  # short: a socket's path is at most 107 bytes
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        self._process: subprocess.Popen[bytes] | None = None
        initdb = [programs / "initdb", "-D", self.folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run([*initdb, "--locale=C"], cwd=self.folder, capture_output=True, check=False, **self._as)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.decode()[-500:]}")

    def url(self, name: str) -> URL:
        """Of the database ``name``."""
        return URL.create("postgresql+psycopg", USER, database=name, query={"host": str(self.folder)})

    def start(self) -> None:
        """Returns when it answers."""
        options = [
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=40",
            "-c",
            "shared_buffers=16MB",
        ]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._as,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        ready = [self._programs / "pg_isready", "-h", self.folder, "-U", USER, "-d", "postgres"]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("postgres does not answer")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def close(self) -> None:
        """Stop, and delete everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def running() -> Iterator[Postgres]:
    """For a fixture. Raises ``LookupError`` when PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        raise LookupError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _unprivileged() -> dict[str, Any]:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise LookupError("initdb does not run as root, and there is no unprivileged user")
