"""``banyan bench`` against a server in this process, over both protocols: what is sent, counted, failed and written."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backend.cli.main import main
from tests.cli.fake_server import OVERHEAD, TOKENS_PER_WORD, FakeServer, serving

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("--tenants", "2", "--conversations", "5", "--turns", "2", "--system-tokens", "40", "--concurrency", "3"),
    *("--user-max", "30", "--output-max", "12", "--text-seed", "4"),
]


def bench(fake: FakeServer, scheme: str, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code and the document it wrote."""
    with serving(fake) as address:
        status = main(["bench", "--url", f"{scheme}://{address}", *SMALL, "--out", str(out), *more])
    return status, json.loads(out.read_bytes())


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_counts_what_was_sent(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeServer()
    status, document = bench(fake, scheme, tmp_path / "r.json", "--passes", "2", "--requests", "--ttft-limit", "60000")
    assert status == 0
    assert document["shape"]["tokens_per_word"] == TOKENS_PER_WORD
    first, second = document["passes"]
    assert (first["cold"], second["cold"]) == (True, False)
    for one in (first, second):
        summary = one["summary"]
        assert (summary["sent"], summary["ok"], summary["failed"], summary["not_sent"]) == (10, 10, 0, 0)
        assert summary["output_tokens"] == sum(r["asked_tokens"] for r in one["requests"])
        assert (summary["short"], summary["attainment"]) == (0, 1.0)
        assert summary["itl_ms"]["count"] == summary["output_tokens"] - 10
    assert first["summary"]["cached_tokens"] == 8 * 40  # the first on each of the two prompts is cold
    assert second["summary"]["cached_tokens"] == 10 * 40
    assert 1 < fake.open_most <= 3
    shown = capsys.readouterr().out
    assert "TTFT" in shown
    assert "attainment" in shown


def test_prompt_tokens_are_the_servers(tmp_path: Path) -> None:
    fake = FakeServer()
    _, document = bench(fake, "http", tmp_path / "r.json", "--tokens-per-word", "1")
    words = [sum(len(m["content"].split()) for m in body["messages"]) for body in fake.bodies]
    assert document["passes"][0]["summary"]["prompt_tokens"] == sum(OVERHEAD + TOKENS_PER_WORD * n for n in words)


def test_socket_chains_turns(tmp_path: Path) -> None:
    fake = FakeServer()
    bench(fake, "ws", tmp_path / "r.json", "--tokens-per-word", "2", "--api-key", "k1", "--ignore-eos", "--model", "m")
    assert len(fake.created) == 10
    assert fake.headers == ["Bearer k1"] * 5
    ids = {f"resp_{number}" for number in range(1, 11)}
    chained = [event["previous_response_id"] for event in fake.created if "previous_response_id" in event]
    assert len(chained) == 5
    assert set(chained) <= ids
    assert all(e["ignore_eos"] and e["model"] == "m" and e["temperature"] == 0 for e in fake.created)


def test_history_goes_along_over_http(tmp_path: Path) -> None:
    fake = FakeServer()
    bench(fake, "http", tmp_path / "r.json", "--tokens-per-word", "2", "--extra", '{"temperature": null, "top_p": 0.5}')
    second = [body for body in fake.bodies if len(body["messages"]) > 2]
    assert len(second) == 5
    for body in second:
        assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
        assert body["messages"][2]["content"].startswith(" w0 w1")
        assert "temperature" not in body
        assert body["top_p"] == 0.5


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_without_usage_it_says_so(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = bench(FakeServer(usage=False), scheme, tmp_path / "r.json")
    assert status == 0
    assert document["passes"][0]["summary"]["without_usage"] == 10
    assert "no usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scheme", "word", "error"),
    [
        ("ws", "FAIL", "engine_error: it broke"),
        ("ws", "BREAK", "ConnectionClosedError"),
        ("http", "FAIL", "HTTP 503"),
        ("http", "BREAK", "the stream ended without [DONE]"),
    ],
)
def test_failures_are_counted(
    scheme: str,
    word: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("backend.cli.bench.workload.WORDS", [word])
    status, document = bench(FakeServer(), scheme, tmp_path / "r.json", "--tokens-per-word", "2")
    summary = document["passes"][0]["summary"]
    assert status == 1
    assert (summary["sent"], summary["failed"], summary["not_sent"]) == (5, 5, 5)
    assert sum(summary["errors"].values()) == 5
    assert all(error in name for name in summary["errors"])
    assert error in capsys.readouterr().out


def test_timeout_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.cli.bench.workload.WORDS", ["SLOW"])
    status, document = bench(FakeServer(), "ws", tmp_path / "r.json", "--tokens-per-word", "2", "--timeout", "0.2")
    assert status == 1
    assert document["passes"][0]["summary"]["errors"] == {"timeout": 5}


def test_interrupted_it_reports_what_there_is(tmp_path: Path) -> None:
    fake = FakeServer()
    fake.holding = True
    command = [sys.executable, "-m", "backend.cli.main", "bench", *SMALL, "--tokens-per-word", "2"]
    with serving(fake) as address:
        running = subprocess.Popen(
            [*command, "--url", f"ws://{address}", "--out", str(tmp_path / "r.json")], cwd=ROOT, stdout=subprocess.PIPE
        )
        while len(fake.created) < 3:
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        shown, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert b"interrupted" in shown
    document = json.loads((tmp_path / "r.json").read_bytes())
    assert document["interrupted"]
    assert document["passes"][0]["summary"]["errors"] == {"interrupted": 3}
    assert document["passes"][0]["summary"]["not_sent"] == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "ws://127.0.0.1:1"], ["ws://127.0.0.1:1", "does not answer"]),
        (["--url", "http://127.0.0.1:1"], ["does not answer"]),
        (["--url", "ftp://x"], ["--url", "ws://"]),
        (["--user-min", "50", "--user-max", "20"], ["--user-min", "--user-max"]),
        (["--out", "no-such-folder/r.json"], ["--out", "no-such-folder"]),
    ],
)
def test_errors_in_one_line(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 1
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("arguments", [["--tenants", "0"], ["--rate", "nan"], ["--turns", "x"], ["--extra", "[1]"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
