"""The workloads: shapes, order, determinism, and traces that cannot be read."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, pstdev

import pytest

from scheduler.chat_trace import ChatShape, chat, public_prompts, system_prompt
from scheduler.trace import GOES_ON, STOP, TraceError, read_mooncake, shared_prefixes, token_block


def test_generated_shared_prefixes() -> None:
    trace = list(shared_prefixes(3, 4, 10, 5, 7, rate=2.0, seed=1))
    assert len(trace) == 12
    assert {len(request.prompt) // 4 for request in trace} == {15}
    assert len({request.prompt[:40] for request in trace}) == 3
    assert len({request.prompt for request in trace}) == 12
    assert [request.arrival for request in trace] == sorted(request.arrival for request in trace)
    assert {(request.output, request.max_tokens, request.system_tokens) for request in trace} == {(7, 7, 10)}
    assert len({request.tenant for request in trace}) == 3
    assert trace == list(shared_prefixes(3, 4, 10, 5, 7, rate=2.0, seed=1))
    skewed = [request.prompt[:40] for request in shared_prefixes(20, 20, 10, 5, 7, zipf=1.2)]
    assert skewed.count(token_block("system 0", 10)) > 40


def test_lengths_of_answers_vary() -> None:
    trace = list(shared_prefixes(20, 100, 10, 5, 64, output_sigma=1.0, tenants=2))
    assert median(request.output for request in trace) == pytest.approx(64, rel=0.1)
    assert {request.max_tokens for request in trace} == {512}
    assert min(request.output for request in trace) >= 1 and max(request.output for request in trace) == 512
    assert Counter(request.tenant for request in trace) == {"tenant 0": 1000, "tenant 1": 1000}


def test_mooncake_trace(tmp_path: Path) -> None:
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
    assert len(list(read_mooncake(path, limit=1))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "bad.jsonl, line 1"),
        ('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0]}', "1 blocks for 600"),
        ('{"timestamp": 0, "input_length": "x", "output_length": 5, "hash_ids": [0]}', "input_length"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        list(read_mooncake(path))
    with pytest.raises(TraceError, match="No such file"):
        list(read_mooncake(tmp_path / "none"))


# ---------------------------------------------------------------------- chat


def test_a_conversation_goes_on_from_what_was_said() -> None:
    shape = ChatShape(requests=400, rate=5.0, tenants=3, system_tokens=20, turns=5.0, think_s=2.0, max_tokens=50)
    open_turns: dict[bytes, int] = {}
    later = 0
    for request in chat(shape):
        history = request.prompt[: request.history_tokens * 4]
        if request.history_tokens == 20:
            assert history == system_prompt(shape, int(request.tenant.split()[1]))
        else:
            later += 1
            del open_turns[history]  # a KeyError: nobody said this before
        said = [GOES_ON] * (request.output - 1) + [STOP]
        after = request.prompt + b"".join(token.to_bytes(4, "little") for token in said)
        open_turns[after] = 1
        assert request.system_tokens == 20 and request.output <= request.max_tokens == 50
    assert later > 200


def test_rate_order_and_popularity() -> None:
    shape = ChatShape(requests=20_000, rate=50.0, tenants=10, zipf=1.0, system_tokens=1, turns=4.0, think_s=1.0)
    trace = list(chat(shape))
    arrivals = [request.arrival for request in trace]
    assert arrivals == sorted(arrivals)
    assert len(arrivals) / arrivals[-1] == pytest.approx(50.0, rel=0.1)
    firsts = sum(request.history_tokens == 1 for request in trace)
    assert len(trace) / firsts == pytest.approx(4.0, rel=0.1)
    by_tenant = Counter(request.tenant for request in trace)
    assert by_tenant["tenant 0"] / by_tenant["tenant 4"] == pytest.approx(5.0, rel=0.3)
    assert median(request.output for request in trace) == pytest.approx(96, rel=0.05)
    assert trace[:100] == [request for request, _ in zip(chat(shape), range(100), strict=False)]


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 3.0])
def test_burstiness_is_the_variation_of_gaps(burstiness: float) -> None:
    shape = ChatShape(requests=20_000, rate=10.0, burstiness=burstiness, turns=1.0, system_tokens=0, max_tokens=1)
    gaps = [later.arrival - earlier.arrival for earlier, later in pairwise(chat(shape))]
    assert mean(gaps) == pytest.approx(0.1, rel=0.1)
    assert pstdev(gaps) / mean(gaps) == pytest.approx(burstiness, rel=0.1)


def test_conversations_stay_within_the_context() -> None:
    shape = ChatShape(
        requests=2000, turns=100.0, think_s=0.1, system_tokens=50, max_tokens=60, max_context=256, rate=9.0
    )
    longest = max(len(request.prompt) // 4 + request.max_tokens for request in chat(shape))
    assert 200 < longest <= 256


def test_public_prompts() -> None:
    shape = ChatShape(tenants=5, public_prompts=2, system_tokens=30)
    first, second = public_prompts(shape)
    assert system_prompt(shape, 0) == system_prompt(shape, 2) == first != second
    assert public_prompts(ChatShape()) == []


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"requests": 0}, {"turns": 0.5}, {"think_s": float("nan")}, {"max_context": 1000}]
)
def test_wrong_shapes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|fit"):
        ChatShape(**wrong)
