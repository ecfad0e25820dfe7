"""The operator's commands, on a database of their own; and that a running server takes over what they do."""

import io
import json
import stat
from pathlib import Path

import pytest
from rich.console import Console

from backend import config
from backend.cli import serving
from backend.cli.main import main
from backend.errors import StartError
from backend.tenants.database import database_url, open_database
from backend.tenants.directory import Directory


class Terminal:
    """Runs commands against one data folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """What the command printed; on failure what it complained."""
        assert main([*words, "--data-dir", str(self.folder)]) == code, self._capsys.readouterr().err
        shown = self._capsys.readouterr()
        assert "Traceback" not in shown.err
        return shown.err if code else shown.out

    def rows(self, *words: str) -> list[dict]:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for variable in ("BANYAN_DATABASE", "BANYAN_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return Terminal(tmp_path / "data", capsys)


def directory(terminal: Terminal) -> Directory:
    database = open_database(database_url("", terminal.folder))
    found = Directory(database)
    database.close()
    return found


def test_tenants(terminal: Terminal) -> None:
    assert "banyan tenant add" in terminal("tenant", "list")
    assert "banyan key add alda" in terminal("tenant", "add", "alda", "weight=2", "requests-per-minute=60")
    (row,) = terminal.rows("tenant", "set", "alda", "page_limit=100", "budget_period=day", "cached_weight=0.5")
    assert (row["weight"], row["pages"]) == (2.0, 100)
    assert row["limits"] == "requests_per_minute=60, cached_weight=0.5, budget_period=day"
    (shown,) = terminal.rows("tenant", "show", "alda")
    assert shown["requests_per_minute"] == 60 and shown["page_limit"] == 100
    assert "requests_per_minute" in terminal("tenant", "show", "alda")
    terminal("tenant", "remove", "alda")
    assert terminal.rows("tenant", "list") == []
    assert [row["action"] for row in terminal.rows("audit")] == ["tenant.remove", "tenant.set", "tenant.add"]
    assert all(row["actor"].startswith("cli:") for row in terminal.rows("audit"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tenant", "add", "Alda"], "not a tenant's name"),
        (["tenant", "add", "alda", "weight"], "NAME=VALUE"),
        (["tenant", "add", "alda", "weight=x"], "weight"),
        (["tenant", "add", "alda", "streams=1.5"], "streams"),
        (["tenant", "add", "alda", "nothing=1"], "nothing"),
        (["tenant", "show", "nobody"], "no tenant 'nobody'"),
        (["key", "add", "nobody"], "no tenant 'nobody'"),
        (["key", "revoke", "key_0"], "no key 'key_0'"),
        (["prompt", "publish", "nobody", "p", "--file", "missing.txt"], "cannot read missing.txt"),
        (["prompt", "show", "nobody", "p"], "no prompt 'p'"),
        (["usage", "--database", "mysql://a/b"], "--database"),
    ],
)
def test_mistakes_are_one_line(terminal: Terminal, words: list[str], says: str) -> None:
    complaint = terminal(*words, code=1)
    assert complaint.startswith("banyan: ") and says in complaint and complaint.count("\n") == 1


def test_keys(terminal: Terminal) -> None:
    terminal("tenant", "add", "alda")
    said = terminal("key", "add", "alda", "--scopes", "chat, models", "--label", "app", "--expires-days", "30")
    secret = said.split()[0]
    identity = directory(terminal).authenticate(secret)
    assert identity is not None and identity.scopes == {"chat", "models"}
    (row,) = terminal.rows("key", "list", "alda")
    assert (row["ends with"], row["state"], row["label"]) == (secret[-4:], "live", "app")
    assert secret not in terminal("key", "list") + terminal("audit")
    (rotated,) = terminal.rows("key", "rotate", row["id"], "--grace-hours", "0")
    assert directory(terminal).authenticate(secret) is None
    assert directory(terminal).authenticate(rotated["key"]) is not None
    assert "…" + rotated["key"][-4:] in terminal("key", "revoke", rotated["id"])
    assert directory(terminal).live_keys() == 0
    for _ in range(2):
        terminal("key", "add", "alda")
    assert "at most 2" in terminal("key", "add", "alda", code=1)
    terminal("key", "add", "alda", "--more")


def test_prompts(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal("tenant", "add", "alda")
    (tmp_path / "one.txt").write_text("You are Alda.\n", encoding="utf-8")
    publish = ("prompt", "publish", "alda", "shop")
    assert "version 1" in terminal(*publish, "--file", str(tmp_path / "one.txt"), "--public", "--pin", "hard")
    monkeypatch.setattr("sys.stdin", io.StringIO("You are Alda 🙂."))
    assert "version 2" in terminal(*publish, "--locked", "--name", "Shop")
    assert terminal("prompt", "show", "alda", "shop") == "You are Alda 🙂.\n"
    assert terminal("prompt", "show", "alda", "shop", "--version", "1") == "You are Alda.\n\n"
    versions = terminal.rows("prompt", "versions", "alda", "shop")
    assert [(v["version"], v["latest"], v["public"], v["locked"], v["pin"]) for v in versions] == [
        (1, "", True, False, "hard"),
        (2, "*", False, True, "soft"),
    ]
    assert "+You are Alda 🙂." in terminal("prompt", "diff", "alda", "shop", "1", "2")
    assert "is 1" in terminal("prompt", "rollback", "alda", "shop", "1")
    assert terminal.rows("prompt", "list", "alda")[0]["latest"] == 1
    terminal("prompt", "remove", "alda", "shop")
    assert "banyan prompt publish alda" in terminal("prompt", "list", "alda")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    assert "not UTF-8" in terminal(*publish, "--file", str(tmp_path / "bad.txt"), code=1)


def test_the_demo_set(terminal: Terminal) -> None:
    rows = terminal.rows("tenant", "demo")
    assert len(rows) == 3
    found = directory(terminal)
    for row in rows:
        identity = found.authenticate(row["key"])
        assert identity is not None and identity.tenant == row["tenant"]
        assert {prompt.tenant for prompt in found.prompts_of(row["tenant"])} == {r["tenant"] for r in rows}
    assert all(len(version.text) > 1000 and version.public for version in found.content.versions.values())
    again = terminal.rows("tenant", "demo")
    assert not any(row["key"].startswith("sk-") for row in again)
    assert "wants a key from everybody" in terminal("tenant", "demo")


def test_usage_and_database(terminal: Terminal) -> None:
    assert terminal("usage") == "nothing was used\n"
    assert terminal.rows("usage", "--hours") == []
    assert "is at 0001" in terminal("database", "upgrade")


def test_cache_names_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--url", "http://127.0.0.1:1"]) == 1
    assert "is `banyan serve` running there?" in capsys.readouterr().err


# ---- banyan serve --------------------------------------------------------------------------------


def open_tenancy(*words: str, folder: Path) -> tuple[object, str]:
    """The tenancy that ``banyan serve`` would have, and what it says."""
    written = dict(zip(words[::2], words[1::2], strict=True)) | {"data_dir": str(folder)}
    console = Console(file=io.StringIO(), width=1000)
    tenancy = serving.open_tenancy(config.resolve(written, {}), console)
    if tenancy.database is not None:
        tenancy.database.close()
    return tenancy, console.file.getvalue()  # type: ignore[attr-defined]


def test_an_address_for_others_needs_a_live_key(terminal: Terminal) -> None:
    def refused() -> str:
        with pytest.raises(StartError) as caught:
            open_tenancy("host", "0.0.0.0", folder=terminal.folder)
        assert caught.value.code == "public_address"
        return caught.value.message

    assert "banyan tenant add" in refused()
    terminal("tenant", "add", "alda")
    refused()
    terminal("key", "add", "alda")
    tenancy, _ = open_tenancy("host", "0.0.0.0", folder=terminal.folder)
    assert not tenancy.directory.is_open  # type: ignore[attr-defined]
    terminal("key", "revoke", terminal.rows("key", "list")[0]["id"])
    refused()
    terminal("tenant", "remove", "alda")
    refused()
    tenancy, said = open_tenancy(folder=terminal.folder)
    assert tenancy.directory.is_open and said == ""  # type: ignore[attr-defined]


def test_a_folder_that_takes_nothing_leaves_the_local_tenant(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tenancy, said = open_tenancy(folder=tmp_path / "file" / "data")
    assert tenancy.database is None and "nothing is kept" in said  # type: ignore[attr-defined]
    with pytest.raises(StartError):
        open_tenancy("host", "0.0.0.0", folder=tmp_path / "file" / "data")


def test_a_database_that_is_there_and_cannot_be_read_is_no_reason_to_let_everybody_in(tmp_path: Path) -> None:
    """Who may use the server stands in it."""
    (tmp_path / "banyan.db").write_bytes(b"damaged " * 1000)
    with pytest.raises(StartError, match=r"banyan\.db"):
        open_tenancy(folder=tmp_path)
    with pytest.raises(StartError):
        open_tenancy("database", "postgresql://nobody@127.0.0.1:1/banyan", folder=tmp_path)


def test_the_databases_file_is_its_owners_alone(terminal: Terminal) -> None:
    """It holds prompts and conversations."""
    terminal("tenant", "add", "alda")
    assert stat.S_IMODE((terminal.folder / "banyan.db").stat().st_mode) & 0o077 == 0
