"""The simulator's figures where they can be computed by hand, its command line, and the workloads."""

import json
from pathlib import Path

import pytest

from scheduler.plan import Chunk, Opened, Sampling, StepPlan
from scheduler.settings import Settings
from scheduler.simulate import CostModel, SimulatedRunner, VirtualClock, main, percentile, simulate
from scheduler.trace import TracedRequest, TraceError, read_mooncake, shared_prefixes, token_block

SETTINGS = Settings(page_size=16, pages=512, max_running=8, max_step_tokens=256, max_waiting=10_000)


def test_one_request_takes_what_the_cost_model_says() -> None:
    cost = CostModel(a=1.0, b=0.1, c=0.001)
    figures = simulate([TracedRequest(5.0, token_block("x", 20), 3)], SETTINGS, cost)
    prefill = 1 + 20 * 0.1 + 20 * 0.001
    gaps = [1 + 0.1 + 21 * 0.001, 1 + 0.1 + 22 * 0.001]
    assert figures.ttft_p50 == pytest.approx(prefill)
    assert figures.itl_max == pytest.approx(gaps[1])
    assert figures.seconds == pytest.approx(5 + prefill + sum(gaps))
    assert figures.throughput == pytest.approx(3 / figures.seconds)
    assert (figures.requests, figures.rejected, figures.steps, figures.hit_rate) == (1, 0, 3, 0.0)


def test_a_shared_prefix_is_computed_once() -> None:
    trace = list(shared_prefixes(groups=2, prompts_per_group=8, system_tokens=64, question_tokens=8, output_tokens=4))
    figures = simulate(trace, SETTINGS)
    assert figures.computed_tokens == 2 * 64 + 16 * 8 + 16 * 3
    assert figures.hit_rate == pytest.approx(14 * 64 / (16 * 72))


def test_what_cannot_fit_is_counted() -> None:
    figures = simulate([TracedRequest(0.0, token_block("x", 9000), 3)], SETTINGS)
    assert (figures.requests, figures.rejected, figures.throughput) == (1, 1, 0.0)


def test_the_runner_notices_a_gap() -> None:
    runner = SimulatedRunner(VirtualClock(), CostModel())
    runner.run(StepPlan(1, [Chunk(1, 0, 0, bytes(8), False)], [Opened(0, 1, Sampling(), 0)]))
    with pytest.raises(ValueError, match="slot 0 has 2 tokens"):
        runner.run(StepPlan(2, [Chunk(1, 0, 3, bytes(4), False)]))


def test_generated_workload() -> None:
    trace = list(shared_prefixes(3, 4, 10, 5, 7, rate=2.0, seed=1))
    assert len(trace) == 12
    assert {len(request.prompt) // 4 for request in trace} == {15}
    assert len({request.prompt[:40] for request in trace}) == 3
    assert [request.arrival for request in trace] == sorted(request.arrival for request in trace)
    assert trace == list(shared_prefixes(3, 4, 10, 5, 7, rate=2.0, seed=1))
    skewed = [request.prompt[:40] for request in shared_prefixes(20, 20, 10, 5, 7, zipf=1.2)]
    assert skewed.count(token_block("system 0", 10)) > 40


def test_mooncake_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]},
        {"timestamp": 9000, "input_length": 600, "output_length": 0, "hash_ids": [0, 2]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_mooncake(path, speed=2.0)
    assert (len(first.prompt), len(second.prompt), second.arrival, second.output) == (2800, 2400, 4.5, 1)
    assert first.prompt[:2048] == second.prompt[:2048]
    assert first.prompt[2048:2400] != second.prompt[2048:]
    assert main(["--mooncake", str(path), "--pages", "200"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["hit_rate"]) == pytest.approx(512 / 1300, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0]}', "1 blocks for 600"),
        ('{"timestamp": 0, "input_length": "x", "output_length": 5, "hash_ids": [0]}', "input_length"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        list(read_mooncake(path))
    assert main(["--mooncake", str(path)]) == 2
    assert "bad.jsonl, line 1" in capsys.readouterr().err
    assert main(["--mooncake", str(tmp_path / "none")]) == 2


def test_percentile() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(100)], 0.99) == 99.0
