"""The open requests as people see them."""

from scheduler.lanes import lanes
from scheduler.plan import StepResult
from scheduler.request import NewRequest
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings


def tokens(count: int, first: int = 1) -> bytes:
    return b"".join((first + i).to_bytes(4, "little") for i in range(count))


def test_states_and_walls() -> None:
    scheduler = Scheduler(Settings(pages=64, page_size=4, max_running=2, max_step_tokens=8, max_context=128))
    for request, tenant in ((1, "a"), (2, "b"), (3, "a")):
        scheduler.submit(NewRequest(request, tokens(12, 100 * request), 5, tenant=tenant), 0.0)
    assert [(lane.request, lane.state, lane.done) for lane in lanes(scheduler, None, 9)] == [
        (1, "waiting", 0),
        (2, "waiting", 0),
        (3, "waiting", 0),
    ]
    plan = scheduler.plan(0.0)
    assert plan is not None
    scheduler.check()
    first = lanes(scheduler, None, 9)
    assert sum(lane.chunk for lane in first) == sum(chunk.count for chunk in plan.chunks)
    assert {lane.state for lane in first} == {"prefilling", "waiting"}
    for now in range(1, 6):
        scheduler.commit(StepResult(plan.step, [[7] if chunk.emits else [] for chunk in plan.chunks]), float(now))
        scheduler.check()
        if any(lane.state == "running" for lane in lanes(scheduler, None, 9)):
            break
        plan = scheduler.plan(float(now))
        assert plan is not None
    running = [lane for lane in lanes(scheduler, None, 9) if lane.state == "running"]
    assert running and all(lane.done + 1 == lane.total and lane.limit == 16 and lane.total == 13 for lane in running)
    assert {lane.tenant for lane in lanes(scheduler, "b", 9)} == {"b"} and len(lanes(scheduler, "a", 9)) == 2
    assert len(lanes(scheduler, None, 1)) == 1
    scheduler.cancel(1, 9.0)
    scheduler.check()
    assert 1 not in [lane.request for lane in lanes(scheduler, None, 9)]


def test_who_gave_way_is_preempted_and_nobodys_prompts_are_not_shown() -> None:
    scheduler = Scheduler(Settings(pages=64, page_size=4, max_running=2, max_step_tokens=8, max_context=128))
    scheduler.publish_prompt("p", tokens(8), 0.0)
    assert lanes(scheduler, None, 9) == []
    scheduler.submit(NewRequest(1, tokens(12, 50), 5, tenant="a"), 0.0)
    while not any(lane.state != "waiting" for lane in lanes(scheduler, None, 9)):
        plan = scheduler.plan(0.0)
        assert plan is not None
        scheduler.commit(StepResult(plan.step, [[7] if chunk.emits else [] for chunk in plan.chunks]), 0.0)
    scheduler.running.preempt(scheduler.running.oldest)
    assert [lane.state for lane in lanes(scheduler, None, 9)] == ["preempted"]
    scheduler.check()
