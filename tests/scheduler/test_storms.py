"""Storms of requests, cancels, failures and preemptions: every answer is that of a lone run, nothing is left over."""

import random
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radix.accounts import Quota
from radix.errors import CacheError, PinError
from radix.hashing import xxh3
from scheduler.arms import ARMS
from scheduler.plan import Sampling
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
        max_waiting_per_tenant=draw(st.sampled_from([0, 5])),
        inter_token_s=draw(st.sampled_from([0.0, 0.01])),
        isolation_s=draw(st.sampled_from([0.0, 0.002])),
        ageing_s=draw(st.sampled_from([0.0, 0.02, 10.0])),
        quantum_tokens=draw(st.integers(1, 30)),
        arm=draw(st.sampled_from(["shared", "shared", "shared", *ARMS])),
    )


TENANTS = st.sampled_from(["", "b", "c"])


class Storm(RuleBasedStateMachine):
    """Every action at every point, between ``plan`` and ``commit`` as well, with up to two steps in flight."""

    @initialize(
        settings=settings(),
        block_hash=st.sampled_from(sorted(BLOCK_HASHES)),
        vocab=st.integers(1, 3),
        depth=st.integers(1, 2),
        pin_pages=st.integers(0, 6),
    )
    def build(self, settings: Settings, block_hash: str, vocab: int, depth: int, pin_pages: int) -> None:
        self.house = House(settings, vocab, BLOCK_HASHES[block_hash], depth, pin_pages)
        self.published: dict[str, bytes] = {}

    @rule(
        system=st.integers(0, 2),
        length=st.integers(1, 14),
        question=st.lists(st.integers(0, 1), max_size=6),
        max_tokens=st.integers(1, 14),
        stop=st.sampled_from([frozenset(), frozenset({2})]),
        tenant=TENANTS,
        queue_seconds=st.sampled_from([0.0, 0.0, 0.03]),
        seconds=st.sampled_from([0.0, 0.0, 0.05]),
        sampling=st.sampled_from([Sampling(), Sampling(), Sampling(prompt_logprobs=0), Sampling(presence_penalty=1.0)]),
        open_ended=st.booleans(),
    )
    def ask(
        self,
        system: int,
        length: int,
        question: list[int],
        max_tokens: int,
        stop: frozenset[int],
        tenant: str,
        queue_seconds: float,
        seconds: float,
        sampling: Sampling,
        open_ended: bool,
    ) -> None:
        prompt = pack(self._system(system, length) + question)
        more: dict[str, Any] = {"queue_seconds": queue_seconds, "seconds": seconds, "sampling": sampling}
        self._submit(prompt, max_tokens, stop, tenant, open_ended=open_ended, **more)

    @precondition(lambda self: self.house.output)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), max_size=3), max_tokens=st.integers(1, 8), tenant=TENANTS)
    def go_on(self, data: st.DataObject, more: list[int], max_tokens: int, tenant: str) -> None:
        """The next turn of a conversation, or the same once more, or another tenant that knows it."""
        request = data.draw(st.sampled_from(sorted(self.house.output)))
        self._submit(pack(self.house.text(request) + more), max_tokens, frozenset(), tenant)

    @rule(tenant=TENANTS, weight=st.sampled_from([0.5, 1.0, 4.0]), limit=st.sampled_from([0, 0, 6, 12, 20]))
    def set_tenant(self, tenant: str, weight: float, limit: int) -> None:
        self.house.set_tenant(tenant, weight, Quota(limit))

    @rule(system=st.integers(0, 2), length=st.integers(1, 14), pin=st.sampled_from(["", "soft", "hard"]))
    def publish(self, system: int, length: int, pin: str) -> None:
        name, prompt = f"{system} {length} {pin}", pack(self._system(system, length))
        if name in self.published:
            return
        try:
            self.house.publish(name, prompt, pin)
            self.published[name] = prompt
        except PinError:
            pass
        except CacheError:
            page_size, pages = self.house.settings.page_size, self.house.settings.pages
            assert length < page_size or length > page_size * (pages - self.house.cache.stats().pinned_hard)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.published)))
        self.house.scheduler.withdraw_prompt(name, self.published.pop(name))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from([*sorted(self.house.open), 1 << 40]))
        self.house.cancel(request)

    @rule()
    def expire(self) -> None:
        before = set(self.house.open)
        ended = self.house.scheduler.expire(self.house.now)
        assert {entry.request for entry in ended} <= before
        self.house.take(ended)

    @precondition(lambda self: self.house.open)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The runner reports a failure of one request."""
        request = data.draw(st.sampled_from(sorted(self.house.open)))
        self.house.runner.fail.add(request)
        self.house.excused.add(request)

    @rule()
    def launch(self) -> None:
        self.house.launch()

    @precondition(lambda self: self.house.loop.in_flight)
    @rule()
    def collect(self) -> None:
        self.house.collect()

    @rule(count=st.integers(1, 8))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.house.step()

    @precondition(lambda self: self.house.loop.in_flight)
    @rule()
    def explode(self) -> None:
        """The runner raises in the middle of a step."""
        self.house.runner.explode = True
        before = set(self.house.open)
        self.house.excused |= before
        outcome = self.house.collect()
        assert not self.house.runner.explode
        self.house.excused -= (before & set(self.house.open)) - self.house.runner.fail
        assert {entry.finish for entry in outcome.progress} <= {"error"}

    @invariant()
    def whole(self) -> None:
        self.house.scheduler.check()

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        self.house.drain()
        for tenant in ("", "b", "c"):
            self.house.set_tenant(tenant)
        for name, prompt in self.published.items():
            self.house.scheduler.withdraw_prompt(name, prompt)
        self.house.check_empty()

    def _system(self, system: int, length: int) -> list[int]:
        return [(system + 1) * (at + 1) % 3 for at in range(length)]

    def _submit(self, prompt: bytes, max_tokens: int, stop: frozenset[int], tenant: str, **more: Any) -> None:
        house = self.house
        tokens = len(prompt) // 4
        needed = -(-(tokens + (1 if more.get("open_ended") else max_tokens) - 1) // house.settings.page_size)
        code = house.submit(house.new(prompt, max_tokens, stop, tenant, **more))
        pages = house.settings.pages - house.cache.stats().pinned_hard
        if tokens + max_tokens > house.settings.max_context or needed > pages:
            assert code == "context_length_exceeded"
        elif needed > house.cache.quota(tenant):
            assert code == "quota_exceeded"
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
        depth=1 + seed % 2,
    )
    systems = [[chance.randrange(50) for _ in range(chance.randrange(5, 60))] for _ in range(3)]
    left = 60
    while left or house.scheduler.has_work or house.loop.in_flight:
        if left and chance.random() < 0.4:
            left -= 1
            finished = [request for request in house.finished if len(house.text(request)) < 80]
            if finished and chance.random() < 0.3:
                prompt = house.text(chance.choice(finished))
            else:
                prompt = chance.choice(systems)
            prompt = prompt + [chance.randrange(50) for _ in range(chance.randrange(0, 12))]
            house.submit(house.new(pack(prompt), chance.randrange(1, 25), frozenset({49})))
        if house.open and chance.random() < 0.05:
            house.cancel(chance.choice(sorted(house.open)))
        house.step()
    house.check_empty()
    assert house.finished
