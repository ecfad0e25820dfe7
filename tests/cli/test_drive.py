"""Who may send when, against a target in memory: no sockets, no waiting for clocks."""

import asyncio

import msgspec
import pytest

from backend.cli.bench.drive import Drive, tokens_per_word
from backend.cli.bench.statistics import Observation
from backend.cli.bench.target import AnswerFailed, Dialogue
from backend.cli.bench.workload import Shape, Turn, generate

SHAPE = Shape(tenants=2, conversations=6, turns=3, system_tokens=3, concurrency=2)


class MemoryTarget:
    """Answers at once, but not before ``together`` conversations are open; a word makes 1.5 tokens."""

    def __init__(self, together: int = 1, fail_at: int | None = None, usage: bool = True) -> None:
        self.open_now = self.open_most = self.said = 0
        self.fail_at, self.usage = fail_at, usage
        self.together, self.enough = together, asyncio.Event()

    async def open(self, system: str) -> Dialogue:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        if self.open_now >= self.together:
            self.enough.set()
        return MemoryDialogue(self)

    async def close(self) -> None:
        pass


class MemoryDialogue:
    def __init__(self, target: MemoryTarget) -> None:
        self.target = target

    async def say(self, turn: Turn, seen: Observation) -> None:
        await self.target.enough.wait()
        self.target.said += 1
        if self.target.said == self.target.fail_at:
            raise AnswerFailed("it broke")
        seen.frames_s = [seen.sent_s]
        if self.target.usage:
            seen.prompt_tokens, seen.output_tokens = 20 + int(1.5 * len(turn.user.split())), 1

    async def close(self) -> None:
        self.target.open_now -= 1


async def played(target: MemoryTarget, shape: Shape) -> Drive:
    ended: list[Observation] = []
    drive = Drive(target, 60.0, ended.append)
    await drive.run(generate(shape), shape)
    assert len(ended) == len(drive.seen)
    assert target.open_now == 0
    return drive


async def test_closed_loop_keeps_to_its_concurrency() -> None:
    target = MemoryTarget(together=2)
    drive = await played(target, SHAPE)
    assert target.open_most == 2
    assert len(drive.seen) == 18
    assert all(seen.ok for seen in drive.seen)


async def test_turns_of_a_conversation_follow_each_other() -> None:
    drive = await played(MemoryTarget(), SHAPE)
    for number in range(6):
        assert [seen.turn for seen in drive.seen if seen.conversation == number] == [0, 1, 2]


async def test_with_a_rate_nobody_waits_for_others() -> None:
    target = MemoryTarget(together=6)
    await played(target, msgspec.structs.replace(SHAPE, rate=1000.0, concurrency=1))
    assert target.open_most == 6


async def test_a_failed_turn_ends_its_conversation_alone() -> None:
    drive = await played(MemoryTarget(fail_at=1), msgspec.structs.replace(SHAPE, concurrency=1))
    assert [seen.error for seen in drive.seen if seen.conversation == 0] == ["it broke"]
    assert sum(seen.ok for seen in drive.seen) == 15


async def test_interrupted_requests_are_seen() -> None:
    target = MemoryTarget(together=99)
    drive = Drive(target, 60.0, lambda seen: None)
    task = asyncio.create_task(drive.run(generate(SHAPE), SHAPE))
    while len(drive.seen) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [seen.error for seen in drive.seen] == ["interrupted"] * 2
    assert target.open_now == 0


async def test_calibration_measures_the_tokenizer() -> None:
    assert await tokens_per_word(MemoryTarget()) == 1.5
    assert await tokens_per_word(MemoryTarget(usage=False)) is None
