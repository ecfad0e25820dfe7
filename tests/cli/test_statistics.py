"""The figures of a run, checked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cli.bench.statistics import Distribution, Limits, Observation, distribution, meets, percentile, summarize


def seen(sent: float, frames: list[float], tokens: int | None, error: str = "", asked: int = 4) -> Observation:
    """A request of 10 prompt tokens, 6 of them cached."""
    ended = frames[-1] if frames else sent + 1
    return Observation(0, 0, 0, asked, sent, frames, ended, 10, 6, tokens, error)


def test_one_request() -> None:
    one = seen(1.0, [1.5, 1.6, 1.8], 3)
    assert one.ttft_s == pytest.approx(0.5)
    assert one.latency_s == pytest.approx(0.8)
    assert one.tpot_s == pytest.approx(0.15)
    assert one.gaps_s() == pytest.approx([0.1, 0.2])


def test_tokens_of_one_frame_have_no_gap() -> None:
    """Tokens are counted, not frames: 2 frames with 5 tokens have 4 gaps."""
    assert sorted(seen(0, [1.0, 1.4], 5).gaps_s()) == pytest.approx([0, 0, 0, 0.4])


def test_without_usage_frames_count() -> None:
    one = seen(0, [1.0, 2.0], None)
    assert one.tokens == 2
    assert summarize([one], Limits(), 1).without_usage == 1


def test_answer_of_one_token_has_no_tpot() -> None:
    assert seen(0, [1.0], 1).tpot_s is None


def test_nothing_said_is_not_ok() -> None:
    assert not seen(0, [], 0).ok
    assert summarize([seen(0, [], 0)], Limits(), 1).errors == {"no content": 1}


def test_summary() -> None:
    requests = [seen(0.0, [0.5, 1.0], 2, asked=2), seen(1.0, [3.0, 4.0], 2), seen(2.0, [2.5], 1, error="HTTP 503")]
    result = summarize(requests, Limits(ttft_ms=1000), planned=5)
    assert (result.sent, result.ok, result.failed, result.not_sent) == (3, 2, 1, 2)
    assert result.seconds == 4.0
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (20, 12, 4)
    assert result.output_tokens_per_s == 1.0
    assert result.total_tokens_per_s == 6.0
    assert result.short == 1
    assert result.errors == {"HTTP 503": 1}
    assert result.goodput_per_s == 0.25
    assert result.attainment == pytest.approx(1 / 3, abs=1e-4)  # of the requests sent, the failed one too
    assert result.ttft_ms.max == 2000
    assert result.itl_ms.count == 2


def test_each_limit_counts() -> None:
    one = seen(0.0, [0.5, 0.7, 0.9], 3)
    assert meets(one, Limits())
    assert meets(one, Limits(ttft_ms=501, tpot_ms=201, latency_ms=901))
    assert not meets(one, Limits(ttft_ms=499))
    assert not meets(one, Limits(tpot_ms=199))
    assert not meets(one, Limits(latency_ms=899))
    assert not meets(seen(0.0, [0.1], 1, error="x"), Limits())


def test_nothing_sent() -> None:
    result = summarize([], Limits(), 3)
    assert (result.sent, result.not_sent, result.attainment, result.ttft_ms) == (0, 3, 0.0, Distribution())


def test_percentiles() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2.5
    assert percentile([7], 99) == 7
    assert distribution([0.001 * n for n in range(101)]).p95 == 95
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_lies_between_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(sorted(values), percent) <= max(values) * (1 + 1e-12)
