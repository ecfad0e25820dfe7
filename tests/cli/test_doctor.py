"""``banyan doctor``: what it finds here, and what it says about each thing that is wrong."""

import json
import socket
from pathlib import Path

import pytest

from backend.cli import doctor
from backend.cli import main as entry
from backend.tenants.database import database_url, open_database


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The engine's part as told by the test; torch takes seconds to load."""
    found = {
        "python": "3.12.0",
        "torch": "2.11.0",
        "device": "cpu",
        "free_bytes": 8_000_000_000,
        "cpu_library": True,
        "triton": False,
        "cuda": False,
        "model": {
            "architecture": "llama",
            "parameters": 3_000_000,
            "bytes": 12_000_000,
            "dtype": "float32",
            "weights": ["model.safetensors"],
        },
    }
    monkeypatch.setattr(doctor, "_probe", lambda folder, dtype: found)
    return found


def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> tuple[int, str]:
    code = entry.main(["doctor", "--data-dir", str(tmp_path / "data"), "--port", "0", *arguments])
    return code, capsys.readouterr().out


def test_all_is_well(capsys, tmp_path) -> None:
    code, out = said(capsys, tmp_path)
    assert code == 0 and "The server can start." in out and "BAD" not in out
    for word in ("banyan-demo", "will be made", "the C++ library", "3.0 M parameters in float32"):
        assert word in out
    assert not (tmp_path / "data").exists(), "it changes nothing"


def test_the_port_is_taken(capsys, tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out = said(capsys, tmp_path, "--port", str(taken.getsockname()[1]))
    assert code == 1 and "is taken; choose another with --port" in out
    assert "1 of " in out


def test_models(capsys, tmp_path, quick) -> None:
    assert "comes from the hub" in said(capsys, tmp_path, "someone/something")[1]
    code, out = said(capsys, tmp_path, str(tmp_path))
    assert code == 1 and "has no config.json" in out
    quick["model"] |= {"bytes": 16_000_000_000}
    code, out = said(capsys, tmp_path)
    assert code == 1 and "16.00 GB needed, 8.0 GB free" in out and "a smaller model" in out
    quick["model"] |= {"weights": [], "bytes": 1}
    assert "no .safetensors file" in said(capsys, tmp_path)[1]
    del quick["model"]
    quick["problem"] = "config.json: architecture 'X' is not known"
    code, out = said(capsys, tmp_path)
    assert code == 1 and "architecture 'X'" in out


def test_databases(capsys, tmp_path) -> None:
    code, out = said(capsys, tmp_path, "--database", "nonsense")
    assert code == 1 and "--database: a URL such as" in out
    data = tmp_path / "data"
    open_database(database_url("", data)).close()
    code, out = said(capsys, tmp_path)
    assert code == 0 and "up to date, 0 live keys" in out
    code, out = said(capsys, tmp_path, "--host", "0.0.0.0")
    assert code == 1 and "key" in out
    (data / "banyan.db").write_bytes(b"no database" * 500)
    code, out = said(capsys, tmp_path)
    assert code == 1 and "BAD   database" in out


def test_machines(capsys, tmp_path, quick) -> None:
    quick["cpu_library"] = False
    code, out = said(capsys, tmp_path)
    assert code == 0 and "install a C++ compiler" in out
    quick["cuda"] = True
    assert "pip install triton" in said(capsys, tmp_path)[1]
    quick.clear()
    quick["broken"] = "ImportError: libtorch.so is not there"
    code, out = said(capsys, tmp_path)
    assert code == 1 and "libtorch.so" in out


def test_the_probe_itself(monkeypatch) -> None:
    """Asked for real, once."""
    monkeypatch.undo()
    found = doctor._probe(Path(doctor.__file__).parents[1] / "demo" / "model", "auto")
    assert found["model"]["parameters"] == 3_279_104 and found["model"]["weights"] == ["model.safetensors"]
    assert found["free_bytes"] > 0 and found["device"]
    wrong = doctor._probe(Path(__file__).parent, "auto")
    assert "config.json" in wrong["problem"]
    json.dumps(found)
