"""What is imported before the engine's process is started: little, for everything else is imported beside it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LATER = {
    "alembic",
    "asyncio",
    "backend.server.app",
    "jinja2",
    "prometheus_client",
    "rich",
    "sqlalchemy",
    "starlette",
    "tokenizers",
    "torch",
    "uvicorn",
    "uvloop",
    "websockets",
}
SERVE = """
import subprocess, sys
from backend.cli.main import main

def start(command, **settings):
    print(command[-2], *sys.modules)
    sys.exit()

subprocess.Popen = start
main(["serve", "--port", "0", "--data-dir", sys.argv[1]])
"""


def test_the_engine_is_started_before_the_server_is_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    started, *imported = done.stdout.split()
    assert started == "backend.engine.process"
    assert LATER & set(imported) == set()
    assert "backend.engine.spawn" in imported
