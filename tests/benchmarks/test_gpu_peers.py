"""Peers of the GPU benchmark: none of them can harm the run, and none is timed that computes something else."""

import importlib.util
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture
def peers():
    from benchmarks.gpu import peers

    return peers


@pytest.fixture
def bench():
    from benchmarks.gpu.device import DryGpu
    from benchmarks.gpu.stage import Bench
    from benchmarks.gpu.table import Table

    return Bench(DryGpu(), Table())


def test_one_that_hangs_is_stopped_and_the_next_goes_on(peers, bench, capsys) -> None:
    reached = []

    def hangs() -> None:
        for _ in range(200):
            try:
                time.sleep(0.01)
            except Exception:  # as libraries do
                continue
        reached.append("first")

    peers.attempt("first", bench, 0.02, hangs)
    peers.attempt("second", bench, 1, lambda: reached.append("second"))
    assert reached == ["second"]
    assert "first: stopped after" in capsys.readouterr().out


def test_the_limit_of_the_stage_goes_on_behind_that_of_a_peer(peers) -> None:
    class Over(BaseException):
        pass

    def over(*_: object) -> None:
        raise Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with peers.at_most(0.05), pytest.raises(peers.TooSlow):
            time.sleep(5)
        with pytest.raises(Over), peers.at_most(60):
            time.sleep(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_that_is_not_given_or_fails_is_said_and_has_no_row(peers, bench, tmp_path, capsys) -> None:
    def fails() -> None:
        raise RuntimeError("no such\nkernel")

    peers.attempt("broken", bench, 1, fails)
    bench.peers = str(tmp_path)
    peers.attempt("vllm", bench, 1, lambda: peers.peers_triton.vllm_module(tmp_path))
    peers.attempt("sglang", bench, 1, lambda: peers.peers_triton.sglang_modules(tmp_path))
    printed = capsys.readouterr().out
    assert "broken: RuntimeError no such kernel" in printed
    assert "vllm: not given (vllm/v1" in printed and "sglang: not given (sglang/kernels" in printed
    assert bench.table.rows == []


def test_files_are_loaded_with_stand_ins_for_what_they_import(peers, tmp_path) -> None:
    folder = tmp_path / peers.peers_triton.VLLM
    folder.mkdir(parents=True)
    (folder / "beside.py").write_text("from vllm.triton_utils import tl, triton\nVALUE = tl.float32\n")
    (folder / "triton_unified_attention.py").write_text(
        "import vllm.envs as envs\n"
        "from vllm.logger import init_logger\n"
        "from vllm.platforms import current_platform\n"
        "from vllm.v1.attention.ops.beside import VALUE\n"
        "from vllm.v1.kv_cache_interface import KVQuantMode\n"
        "logger = init_logger(__name__)\n"
        "def unified_attention(): return envs.VLLM_BATCH_INVARIANT, VALUE, int(KVQuantMode.NONE)\n"
    )
    import triton.language as tl

    assert peers.peers_triton.vllm_module(tmp_path).unified_attention() == (False, tl.float32, 0)
    assert not [name for name in sys.modules if name.split(".")[0] == "vllm"]


class FakeStep:
    """Two layers, and attention that gives ones."""

    layers = 2

    def __init__(self, *_: object, **__: object) -> None:
        import torch

        self.out = torch.ones(3, 4, 8)

    def run(self, layer: int):
        return self.out

    def calls(self):
        return [lambda: time.sleep(0.001)]


@pytest.mark.parametrize(("factor", "rows"), [(1.0, 1), (1.01, 1), (1.03, 0), (float("nan"), 0)])
def test_only_what_computes_the_same_is_timed(peers, bench, monkeypatch, factor, rows, capsys) -> None:
    monkeypatch.setattr(peers, "Step", FakeStep)

    def row() -> None:
        peers.attention(bench, peers.B64, "peer", 1.0, lambda step: lambda layer: step.out * factor)

    peers.attempt("peer", bench, 1, row)
    assert len(bench.table.rows) == rows
    assert ("differs from ours" in capsys.readouterr().out) == (not rows)
