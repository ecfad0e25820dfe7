"""Events of one request: heard in order, by a listener or an iteration, and never after the end."""

import asyncio

from backend.engine.event_stream import EventStream
from backend.engine.messages import Output, Started

EVENTS = [Started(1, 0, 0.0), Output(1, [5]), Output(1, [6], "length")]


def test_a_listener_hears_what_came_before_it_and_after() -> None:
    stream, heard = EventStream(), []
    stream.push(EVENTS[0])
    stream.listen(heard.append)
    assert heard == EVENTS[:1]
    for event in EVENTS[1:]:
        stream.push(event)
        assert heard[-1] is event
    assert heard == EVENTS


def test_nothing_is_heard_after_a_close_in_the_middle_of_an_event() -> None:
    stream, heard = EventStream(), []

    def hear(event: Started | Output | None) -> None:
        heard.append(event)
        stream.close()

    stream.listen(hear)
    for event in EVENTS:
        stream.push(event)
    assert heard == EVENTS[:1]


async def test_an_iteration_ends_with_the_last_event() -> None:
    stream = EventStream()
    for event in EVENTS:
        stream.push(event)
    async with asyncio.timeout(5):
        assert [event async for event in stream] == EVENTS


async def test_an_iteration_that_waits_ends_with_a_close() -> None:
    stream = EventStream()
    stream.push(EVENTS[0])
    asyncio.get_running_loop().call_later(0.01, stream.close)
    async with asyncio.timeout(5):
        assert [event async for event in stream] == EVENTS[:1]
