"""Storms of requests, cancels, failures and preemptions: every answer is that of a lone run, nothing is left over."""

import random

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radix.hashing import xxh3
from scheduler.plan import StepPlan
from scheduler.settings import Settings
from tests.scheduler.house import House
from tests.scheduler.oracle import pack

BLOCK_HASHES = {
    "xxh3": xxh3,
    "two bits": lambda block, seed: xxh3(block, seed) & 3,
    "constant": lambda block, seed: 7,
    "first token only": lambda block, seed: block[0],
}


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    max_running = draw(st.integers(1, 6))
    return Settings(
        page_size=draw(st.integers(1, 5)),
        pages=draw(st.integers(3, 30)),
        max_running=max_running,
        max_step_tokens=max_running + draw(st.integers(0, 20)),
        max_context=60,
        max_waiting=12,
    )


class Storm(RuleBasedStateMachine):
    """Every action at every point, between ``plan`` and ``commit`` as well."""

    @initialize(settings=settings(), block_hash=st.sampled_from(sorted(BLOCK_HASHES)), vocab=st.integers(1, 3))
    def build(self, settings: Settings, block_hash: str, vocab: int) -> None:
        self.house = House(settings, vocab, BLOCK_HASHES[block_hash])
        self.plan: StepPlan | None = None
        self.said: list[bytes] = []

    @rule(
        system=st.integers(0, 2),
        length=st.integers(1, 14),
        question=st.lists(st.integers(0, 1), max_size=6),
        max_tokens=st.integers(1, 14),
        stop=st.sampled_from([frozenset(), frozenset({2})]),
        namespace=st.sampled_from(["", "other"]),
    )
    def ask(
        self, system: int, length: int, question: list[int], max_tokens: int, stop: frozenset[int], namespace: str
    ) -> None:
        prompt = pack([(system + 1) * (at + 1) % 3 for at in range(length)] + question)
        self._submit(prompt, max_tokens, stop, namespace)

    @precondition(lambda self: self.house.output)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), max_size=3), max_tokens=st.integers(1, 8))
    def go_on(self, data: st.DataObject, more: list[int], max_tokens: int) -> None:
        """The next turn of a conversation, or the same once more."""
        request = data.draw(st.sampled_from(sorted(self.house.output)))
        self._submit(pack(self.house.runner.texts[request] + more), max_tokens, frozenset(), "")

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from([*sorted(self.house.open), -1]))
        self.house.cancel(request)

    @precondition(lambda self: self.house.open)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The runner reports a failure of one request."""
        request = data.draw(st.sampled_from(sorted(self.house.open)))
        self.house.runner.fail.add(request)
        self.house.excused.add(request)

    @precondition(lambda self: self.plan is None)
    @rule()
    def plan_step(self) -> None:
        self.plan = self.house.scheduler.plan(self.house.now)

    @precondition(lambda self: self.plan is not None)
    @rule()
    def commit_step(self) -> None:
        plan, self.plan = self.plan, None
        self.house.take(self.house.scheduler.commit(self.house.runner.run(plan), self.house.now))

    @precondition(lambda self: self.plan is None)
    @rule(count=st.integers(1, 8))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.house.step()

    @precondition(lambda self: self.plan is None)
    @rule()
    def explode(self) -> None:
        """The runner raises in the middle of a step."""
        self.house.runner.explode = True
        before = set(self.house.open)
        self.house.excused |= before
        outcome = self.house.step()
        self.house.runner.explode = False
        self.house.excused -= (before & set(self.house.open)) - self.house.runner.fail
        if outcome is not None:
            assert {entry.finish for entry in outcome.progress} <= {"error"}

    @invariant()
    def whole(self) -> None:
        self.house.scheduler.check()

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        if self.plan is not None:
            self.commit_step()
        self.house.drain()

    def _submit(self, prompt: bytes, max_tokens: int, stop: frozenset[int], namespace: str) -> None:
        house = self.house
        tokens = len(prompt) // 4
        needed = -(-(tokens + max_tokens - 1) // house.settings.page_size)
        code = house.submit(house.new(prompt, max_tokens, stop, namespace))
        if tokens + max_tokens > house.settings.max_context or needed > house.settings.pages:
            assert code == "context_length_exceeded"
        else:
            assert code in ("", "server_overloaded")


TestStorm = Storm.TestCase
TestStorm.settings = hypothesis_settings(max_examples=250, stateful_step_count=50)


@pytest.mark.parametrize("seed", range(12))
def test_a_long_storm_changes_no_answer(seed: int) -> None:
    chance = random.Random(seed)
    page_size = chance.choice([1, 2, 4, 7, 16])
    house = House(
        Settings(
            page_size=page_size,
            pages=chance.randrange(max(130 // page_size, 4), max(400 // page_size, 8)),
            max_running=chance.choice([2, 8, 16]),
            max_step_tokens=chance.choice([16, 40, 200]),
            max_context=120,
            max_waiting=100,
        ),
        vocab=chance.choice([2, 50]),
    )
    systems = [[chance.randrange(50) for _ in range(chance.randrange(5, 60))] for _ in range(3)]
    left = 60
    while left or house.scheduler.has_work:
        if left and chance.random() < 0.4:
            left -= 1
            finished = [request for request in house.finished if len(house.runner.texts[request]) < 80]
            if finished and chance.random() < 0.3:
                prompt = house.runner.texts[chance.choice(finished)]
            else:
                prompt = chance.choice(systems)
            prompt = prompt + [chance.randrange(50) for _ in range(chance.randrange(0, 12))]
            house.submit(house.new(pack(prompt), chance.randrange(1, 25), frozenset({49})))
        if house.open and chance.random() < 0.05:
            house.cancel(chance.choice(sorted(house.open)))
        house.step()
    house.check_empty()
    assert house.finished
