"""What the browser tests stand on: the built UI, and a server of the real protocol with an in-memory engine.

Knows how both are made and started. Does not know the browser.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import web

REPOSITORY = Path(__file__).resolve().parents[2]
WEB = REPOSITORY / "web"
START_LIMIT_S = 60.0


def npm(*arguments: str) -> str:
    """Runs npm in ``web/`` and returns its output.

    Raises FileNotFoundError where npm is missing and RuntimeError, with npm's own words, where it fails.
    """
    program = shutil.which("npm")
    if program is None:
        raise FileNotFoundError("npm is missing: install Node.js 20.19 or newer with npm")
    done = subprocess.run([program, *arguments], cwd=WEB, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"npm {' '.join(arguments)} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return done.stdout


def built_ui() -> Path:
    """The folder of the built UI; builds it where nobody has, or where a source is newer."""
    folder = web.dist()
    if folder is None or (folder / "index.html").stat().st_mtime < _newest_source():
        packages()
        npm("run", "build")
        folder = web.dist()
    if folder is None:
        raise RuntimeError("`npm run build` succeeded but left no web/dist/index.html")
    return folder


def packages() -> None:
    """Installs what ``package-lock.json`` names, where that has not been done."""
    if not (WEB / "node_modules").is_dir():
        npm("ci")


def _newest_source() -> float:
    """When a file that the build reads was last changed, in seconds since 1970."""
    sources = [WEB / "index.html", WEB / "vite.config.ts", WEB / "package-lock.json"]
    for folder in ("src", "public"):
        sources += [path for path in (WEB / folder).rglob("*") if path.is_file()]
    return max(path.stat().st_mtime for path in sources)


@contextmanager
def running_server(port: int | None = None) -> Iterator[str]:
    """A test server on a loopback port (a free one unless given), as its address; stopped with the block."""
    port = free_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.server.fake_app", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Its access log is of no interest; what goes wrong it says on stderr.
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_until_up(process, url)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the test server ended with status {process.returncode} before it answered")
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise TimeoutError(f"the test server did not answer at {url} within {START_LIMIT_S:.0f} s")
