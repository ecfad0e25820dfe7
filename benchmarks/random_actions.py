"""A million random actions on scheduler and cache: every invariant on a sample, memory before and after.

    python -m benchmarks.random_actions [--actions 1000000] [--check-every 2000] [--seed 0]

Actions: requests of several tenants on public and private system prompts and next turns of conversations, cancels,
deadlines, failures of requests and of whole steps, up to two steps in flight, quotas and weights that change, prompts
that are published, pinned and withdrawn. A pool that is too small keeps eviction and preemption going. Whatever a
check finds broken ends the run with an error. What is computed is checked in the tests, against a runner whose pages
know what was written into them; here it is the counts, the locks, and that nothing is left over.
"""

import argparse
import os
import random
import sys
import time
from array import array
from collections import Counter, deque
from pathlib import Path

from radix.accounts import Quota
from radix.errors import PinError
from scheduler.plan import StepPlan, StepResult
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import DEPTH, Scheduler
from scheduler.settings import Settings

SETTINGS = Settings(
    page_size=16,
    pages=320,
    max_running=24,
    max_step_tokens=512,
    max_context=2048,
    max_waiting=64,
    inter_token_s=0.05,
    ageing_s=0.5,
)
TENANTS = [f"tenant {number}" for number in range(6)]
SYSTEMS = 8
TOKENS = 1000


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Storm:
    """The scheduler, the steps in flight, the conversations so far, and chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.scheduler = Scheduler(SETTINGS)
        self.now = 0.0
        self.flying: deque[StepPlan] = deque()
        self.open: dict[int, array[int]] = {}
        self.said: deque[tuple[str, array[int]]] = deque(maxlen=200)
        self.systems = [self.draw(self.chance.randrange(30, 300)) for _ in range(SYSTEMS)]
        self.published: set[int] = set()
        self.ids = 0
        self.done: Counter[str] = Counter()
        self.actions = {
            self.ask: 22,
            self.step: 60,
            self.cancel: 4,
            self.expire: 4,
            self.publish: 1,
            self.withdraw: 1,
            self.set_tenant: 1,
        }

    def draw(self, count: int) -> "array[int]":
        """Random tokens."""
        return array("I", self.chance.choices(range(TOKENS), k=count))

    def act(self) -> None:
        """One action."""
        (action,) = self.chance.choices(list(self.actions), self.actions.values())
        self.now += self.chance.expovariate(100)
        action()
        self.done[action.__name__] += 1

    def ask(self) -> None:
        """A new conversation, or the next turn of one."""
        chance = self.chance
        if self.said and chance.random() < 0.4:
            tenant, prompt = chance.choice(self.said)
            prompt = prompt + self.draw(chance.randrange(1, 40))
        else:
            tenant = chance.choice(TENANTS)
            prompt = chance.choice(self.systems) + self.draw(chance.randrange(1, 100))
        self.ids += 1
        most = min(chance.choice([1, 8, 64, 300]), SETTINGS.max_context - len(prompt))
        if most < 1:
            return
        new = NewRequest(
            self.ids,
            prompt.tobytes(),
            most,
            stop_tokens=frozenset({0}),
            tenant=tenant,
            queue_seconds=chance.choice([0, 0, 2.0]),
            seconds=chance.choice([0, 0, 5.0]),
            open_ended=chance.random() < 0.5,
        )
        try:
            self.scheduler.submit(new, self.now)
        except RequestRejected as error:
            self.done[error.code] += 1
            return
        self.open[self.ids] = prompt

    def step(self) -> None:
        """Plan a step if one may be planned, and take the oldest one in."""
        if len(self.flying) < DEPTH and (plan := self.scheduler.plan(self.now)) is not None:
            self.flying.append(plan)
        if self.flying and (len(self.flying) == DEPTH or self.chance.random() < 0.7):
            self.commit()

    def commit(self) -> None:
        """The oldest step in flight comes back, sometimes with failures."""
        plan, chance = self.flying.popleft(), self.chance
        tokens = [[chance.randrange(TOKENS // 4)] if chunk.emits else [] for chunk in plan.chunks]
        failures = {}
        if chance.random() < 0.01:
            failures = {chunk.request: "it failed" for chunk in plan.chunks if chance.random() < 0.5}
        elif chance.random() < 0.002:
            failures = {chunk.request: "all failed" for chunk in plan.chunks}
        seconds = 0.005 + 1e-5 * sum(chunk.count for chunk in plan.chunks)
        for entry in self.scheduler.commit(StepResult(plan.step, tokens, failures), self.now, seconds):
            text = self.open[entry.request]
            text.extend(entry.tokens)
            if entry.finish:
                self.done[entry.finish] += 1
                tenant = TENANTS[entry.request % len(TENANTS)]
                self.said.append((tenant, self.open.pop(entry.request)))

    def cancel(self) -> None:
        """Somebody goes away."""
        if self.open:
            request = self.chance.choice(list(self.open))
            self.scheduler.cancel(request, self.now)
            del self.open[request]

    def expire(self) -> None:
        """Time is over for some."""
        for entry in self.scheduler.expire(self.now):
            self.done[entry.finish] += 1
            del self.open[entry.request]

    def publish(self) -> None:
        """A system prompt becomes public."""
        number = self.chance.randrange(SYSTEMS)
        if number in self.published:
            return
        pin = self.chance.choice(["", "soft", "hard"])
        try:
            self.scheduler.publish_prompt(str(number), self.systems[number].tobytes(), self.now, pin)
            self.published.add(number)
        except PinError:
            self.done["pin refused"] += 1

    def withdraw(self) -> None:
        """A system prompt is public no longer."""
        if self.published:
            number = self.chance.choice(sorted(self.published))
            self.scheduler.withdraw_prompt(str(number), self.systems[number].tobytes())
            self.published.remove(number)

    def set_tenant(self) -> None:
        """Another weight and quota; requests that cannot live with it are cut, or end."""
        limit, weight = self.chance.choice([0, 0, 60, 140]), self.chance.choice([0.5, 1.0, 3.0])
        for entry in self.scheduler.set_tenant(self.chance.choice(TENANTS), weight, Quota(limit), self.now):
            self.done[entry.finish] += 1
            del self.open[entry.request]

    def drain(self) -> None:
        """Everybody comes to an end, then nothing is held."""
        while self.scheduler.has_work or self.flying:
            self.now += 0.01
            self.step()
        for number in sorted(self.published):
            self.scheduler.withdraw_prompt(str(number), self.systems[number].tobytes())
        self.scheduler.check()
        stats = self.scheduler.cache.stats()
        left = (stats.private, stats.pending, stats.leases, stats.producers, stats.cached - stats.evictable)
        if any(left):
            raise RuntimeError(f"left over: private, pending, leases, producers, held = {left}")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=1_000_000)
    parser.add_argument("--check-every", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    storm = Storm(options.seed)
    began, checks, tenth = time.monotonic(), 0, max(options.actions // 10, 1)
    for number in range(1, options.actions + 1):
        storm.act()
        if number % options.check_every == 0:
            storm.scheduler.check()
            checks += 1
        if number % tenth == 0:
            load = storm.scheduler.load()
            print(
                f"{number:>10,} actions  {time.monotonic() - began:6.0f} s  {resident_bytes() / 2**20:6.1f} MiB  "
                f"{load.steps:,} steps  {load.output_tokens:,} tokens  {load.preemptions:,} preemptions  "
                f"{load.evicted_pages:,} pages evicted",
                flush=True,
            )
    storm.drain()
    print(f"{checks:,} checks, nothing broken, nothing left over")
    print(", ".join(f"{name} {count:,}" for name, count in storm.done.most_common()))
    stats = storm.scheduler.cache.stats()
    print(f"quota: {stats.evicted_for_quota:,} pages evicted, {stats.refused_for_quota:,} times refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
