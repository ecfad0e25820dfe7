"""The TypeScript project by its own means, and the import package around its output."""

import json
import re
from pathlib import Path

import pytest

import web
from tests.web import server


def test_types() -> None:
    server.packages()
    server.npm("run", "check")


def test_units() -> None:
    server.packages()
    server.npm("test")


def test_lock_file_names_no_host() -> None:
    lock = json.loads((server.WEB / "package-lock.json").read_text())
    assert lock["packages"]
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []


def test_dist_is_the_built_ui() -> None:
    folder = server.built_ui()
    assert web.dist() == folder
    page = (folder / "index.html").read_text()
    # A content policy of `default-src 'self'` refuses all of these.
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", page) == []


def test_dist_is_none_where_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "__file__", str(tmp_path / "__init__.py"))
    assert web.dist() is None
