"""From MODEL to a folder: the hub's protocol against a real local server, in a process of its own as in use."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cli import checkpoint
from backend.errors import StartError
from tests.cli.hub_server import COMMIT, Hub, serving

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 4096,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"not wanted",
    "README.md": b"not wanted",
}
SCRIPT = """
import sys
from pathlib import Path
from backend.cli.checkpoint import locate
from backend.errors import StartError
try:
    found = locate(sys.argv[1], Path(sys.argv[2]))
    print(found.folder, found.name, sep="\\n")
except StartError as error:
    print(error.code, error.message, sep="\\n")
    sys.exit(1)
"""


def locate(model: str, data_dir: Path, endpoint: str) -> tuple[int, list[str]]:
    """Run ``checkpoint.locate`` in a new process that takes ``endpoint`` for the hub; exit code and lines."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    environment |= {"HF_ENDPOINT": endpoint, "PYTHONPATH": str(ROOT), "HOME": str(data_dir), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", SCRIPT, model, str(data_dir)]
    done = subprocess.run(command, env=environment, cwd=data_dir, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_downloads_what_is_wanted_and_works_offline_after(tmp_path: Path) -> None:
    hub = Hub(FILES)
    with serving(hub) as endpoint:
        status, (folder, name) = locate("org/tiny@v1", tmp_path, endpoint)
        assert (status, name) == (0, "org/tiny")
        assert Path(folder).is_relative_to(tmp_path / "models")
        assert Path(folder).name == COMMIT
        got = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        assert got == {n: c for n, c in FILES.items() if n not in ("pytorch_model.bin", "README.md")}
        assert not any("pytorch_model.bin" in path for _, path in hub.asked)
    # The server is gone now: what was downloaded still starts.
    status, (again, _) = locate("org/tiny@v1", tmp_path, endpoint)
    assert (status, again) == (0, folder)


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("org/missing", "model_not_found", ["org/missing", "HF_TOKEN"]),
        ("org/gated", "model_gated", ["org/gated", "gated", "HF_TOKEN"]),
        ("org/tiny@v9", "model_not_found", ["org/tiny", "'v9'"]),
    ],
)
def test_says_why_the_hub_refuses(tmp_path: Path, model: str, code: str, words: list[str]) -> None:
    with serving(Hub(FILES)) as endpoint:
        status, lines = locate(model, tmp_path, endpoint)
    assert (status, lines[0]) == (1, code)
    assert all(word in lines[1] for word in words), lines


def test_says_that_the_hub_is_out_of_reach(tmp_path: Path) -> None:
    with serving(Hub(FILES)) as endpoint:
        pass
    status, lines = locate("org/tiny", tmp_path, endpoint)
    assert (status, lines[0]) == (1, "hub_unreachable")


def test_repository_that_is_no_model(tmp_path: Path) -> None:
    with serving(Hub({"README.md": b"hello"})) as endpoint:
        status, lines = locate("org/tiny", tmp_path, endpoint)
    assert (status, lines[0]) == (1, "model_not_found")


def test_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    with pytest.raises(StartError, match=r"config\.json"):
        checkpoint.locate(str(folder), tmp_path)
    (folder / "config.json").write_text("{}")
    assert checkpoint.locate(str(folder), tmp_path) == (folder, "my-model")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(StartError, match="is not a folder"):
        checkpoint.locate(str(tmp_path / "model.gguf"), tmp_path)


@pytest.mark.parametrize("model", ["nothing", "./a/b", "/no/such/folder", "a/b/c", "org/na me", "org/name@", "org/"])
def test_neither_folder_nor_hub_id(tmp_path: Path, model: str) -> None:
    with pytest.raises(StartError, match="no such folder") as caught:
        checkpoint.locate(model, tmp_path)
    assert caught.value.code == "model_not_found"


def test_hub_cache_of_the_hub_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    assert checkpoint.download_folder(tmp_path) == tmp_path / "models"
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert checkpoint.download_folder(tmp_path) is None


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "no_space"), (errno.EROFS, "not_writable")])
def test_disk_errors_name_the_folder(tmp_path: Path, number: int, code: str) -> None:
    error = checkpoint.disk_or_network_error(OSError(number, os.strerror(number)), "org/tiny", tmp_path)
    assert error.code == code
    assert str(tmp_path) in error.message
    assert "--data-dir" in error.message
