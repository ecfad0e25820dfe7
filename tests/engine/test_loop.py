"""The engine loop with a runner that needs no model, and a clock that the test moves."""

from array import array

import pytest

from backend.engine.loop import EngineLoop
from backend.engine.messages import Cancel, Inspect, Output, Report, Shutdown, StepOutput, Submit
from scheduler.loop import Inline, StepLoop
from scheduler.plan import Sampling
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from tests.engine.echo_runner import EchoRunner


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """An ``EngineLoop`` and what it said so far."""

    def __init__(self, **settings: int) -> None:
        sizes = {"page_size": 4, "pages": 64, "max_running": 8, "max_step_tokens": 16, "max_context": 128} | settings
        self.runner = EchoRunner()
        self.clock = Clock()
        scheduler = Scheduler(Settings(**sizes))
        self.loop = EngineLoop(
            scheduler, StepLoop(scheduler, Inline(self.runner, self.clock), self.clock, depth=1), self.clock
        )

    def submit(self, request: int, prompt: list[int], max_tokens: int = 4, **fields: object) -> StepOutput | None:
        ids = array("I", prompt).tobytes()
        return self.loop.handle(Submit(request, ids, max_tokens, Sampling(temperature=0), **fields))  # type: ignore[arg-type,return-value]

    def run(self) -> dict[int, list[Output]]:
        """Steps until nothing is left; the outputs by request."""
        outputs: dict[int, list[Output]] = {}
        while self.loop.has_work:
            step = self.loop.step()
            assert step is not None
            for output in step.outputs:
                outputs.setdefault(output.request, []).append(output)
        return outputs

    def report(self) -> Report:
        answer = self.loop.handle(Inspect(check=True))
        assert isinstance(answer, Report)
        return answer


def test_tokens_and_finish_of_two_requests() -> None:
    engine = Engine()
    engine.submit(1, [1, 2, 3], max_tokens=3)
    engine.submit(2, [7] * 20, max_tokens=9, stop_tokens=[10])
    outputs = engine.run()
    assert [t for o in outputs[1] for t in o.tokens] == [4, 5, 6]
    assert outputs[1][-1].finish == "length"
    assert [t for o in outputs[2] for t in o.tokens] == [8, 9, 10]
    assert outputs[2][-1].finish == "stop"
    assert engine.report().problem == ""


def test_started_tells_cached_tokens_and_waiting_time() -> None:
    engine = Engine()
    engine.submit(1, list(range(12)))
    engine.run()
    engine.submit(2, [*range(12), 40])
    engine.clock.now += 0.25
    step = engine.loop.step()
    assert step is not None
    (started,) = step.started
    assert started.cached == 12
    assert started.queue_ms == pytest.approx(250)


def test_a_rejected_request_fails_alone() -> None:
    engine = Engine()
    engine.submit(1, [1])
    answer = engine.submit(2, [1] * 200)
    assert answer is not None
    assert answer.outputs[0].code == "context_length_exceeded"
    assert "200" in answer.outputs[0].message
    assert list(engine.run()) == [1]


def test_an_id_in_use_is_refused_and_the_first_goes_on() -> None:
    engine = Engine()
    engine.submit(1, [1])
    answer = engine.submit(1, [9])
    assert answer is not None
    assert answer.outputs[0].code == "invalid_request"
    assert [t for o in engine.run()[1] for t in o.tokens] == [2, 3, 4, 5]


def test_deadline_ends_a_request_and_frees_its_pages() -> None:
    engine = Engine()
    engine.submit(1, [1], max_tokens=100, seconds=1.0)
    engine.submit(2, [2], max_tokens=3)
    assert engine.loop.step() is not None
    engine.clock.now += 2
    outputs = engine.run()
    assert outputs[1][-1].finish == "deadline"
    assert outputs[2][-1].finish == "length"
    report = engine.report()
    assert (report.problem, report.load.running, report.load.pages_private) == ("", 0, 0)


def test_a_deadline_after_the_end_says_nothing() -> None:
    engine = Engine()
    engine.submit(1, [1], max_tokens=2, seconds=1.0)
    engine.run()
    engine.clock.now += 5
    assert engine.loop.step() is None


def test_cancel_is_silent_and_idempotent() -> None:
    engine = Engine()
    engine.submit(1, [1], max_tokens=100)
    engine.loop.step()
    for request in (1, 1, 99):
        assert engine.loop.handle(Cancel(request)) is None
    assert not engine.loop.has_work
    assert engine.report().load.pages_private == 0


def test_a_failure_of_one_request_leaves_the_others() -> None:
    engine = Engine()
    engine.runner.broken = {1}
    engine.submit(1, [1])
    engine.submit(2, [2], max_tokens=2)
    outputs = engine.run()
    assert (outputs[1][0].finish, outputs[1][0].code) == ("error", "engine_error")
    assert [t for o in outputs[2] for t in o.tokens] == [3, 4]
    assert engine.report().problem == ""


def test_a_failed_step_ends_its_requests_and_the_engine_goes_on() -> None:
    engine = Engine()
    engine.submit(1, [1])
    engine.runner.explode = True
    outputs = engine.run()
    assert outputs[1][0].finish == "error"
    assert "the device is gone" in outputs[1][0].message
    engine.runner.explode = False
    engine.submit(2, [2], max_tokens=1)
    assert engine.run()[2][-1].finish == "length"
    assert engine.report().problem == ""


def test_shutdown_closes_the_loop() -> None:
    engine = Engine()
    engine.loop.handle(Shutdown())
    assert engine.loop.closing
