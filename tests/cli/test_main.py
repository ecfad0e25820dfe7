"""The command as a whole: help, version, wrong usage, and how errors and interrupts leave."""

import argparse

import pytest

from backend import config
from backend.cli import main as entry
from backend.cli.bench.command import SHAPE_ARGUMENTS
from backend.cli.bench.workload import Shape
from backend.errors import StartError


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        entry.main([*arguments, "--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("banyan ")


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys)
    assert all(name in shown for name in ("serve", "chat", "bench"))


def test_help_of_serve_has_every_option_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "serve")
    for option in config.SERVE_OPTIONS[1:]:
        assert f"--{option.name} {option.metavar}" in shown
        assert f"environment: {option.variable}" in shown
        assert option.help in shown
    assert "default: 8000" in shown


def test_help_of_bench_has_every_option_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "bench")
    for name, _, _, text in SHAPE_ARGUMENTS:
        assert f"{text} (default: {getattr(Shape(), name.replace('-', '_'))})" in shown


def test_help_of_chat(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(word in help_of(capsys, "chat") for word in ("--url", "--prompt", "--system", "/new", "/stats"))


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["serve", "--nothing"], ["serve", "a", "b"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(arguments)
    assert caught.value.code == 2
    assert "usage: banyan" in capsys.readouterr().err


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(entry, "build_parser", lambda command: parser)


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("BANYAN_DEBUG", raising=False)
    raising(StartError("the file is missing"), monkeypatch)
    assert entry.main([]) == 1
    assert capsys.readouterr().err == "banyan: the file is missing\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_DEBUG", "1")
    raising(StartError("the file is missing"), monkeypatch)
    with pytest.raises(StartError):
        entry.main([])


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(KeyboardInterrupt(), monkeypatch)
    assert entry.main([]) == 130
