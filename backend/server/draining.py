"""The end of a server: nothing new is taken, what is open may end in time, then everything is closed.

Knows the app's parts; no signals, no process.
"""

import asyncio
import contextlib

from starlette.applications import Starlette

CLOSE_CODE = 1012
_LOOK_SECONDS = 0.05
_CLOSING_SECONDS = 2.0


async def drain(app: Starlette, seconds: float, abort: asyncio.Event) -> bool:
    """From now on ``/ready`` says no and new requests are refused. Open ones have ``seconds`` to end, then they are
    incomplete. Returns when all sockets are closed: True, or False as soon as ``abort`` is set."""
    state = app.state
    state.service.draining = state.conductor.responses.draining = True
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await state.sockets.tick(state.service.clock)
    while loop.time() < until and (len(state.conductor.responses) or state.service.open_requests):
        if await _set_within(abort, _LOOK_SECONDS):
            return False
        await state.sockets.tick(state.service.clock)
    state.conductor.responses.cancel_all(state.service.clock(), "server_draining")
    until = loop.time() + _CLOSING_SECONDS  # what they say at their end goes out before their sockets close
    while loop.time() < until and any(socket.busy for socket in state.sockets):
        if await _set_within(abort, _LOOK_SECONDS):
            return False
    state.sockets.close_all(CLOSE_CODE, "the server is going down")
    while len(state.sockets) and loop.time() < until:
        if await _set_within(abort, _LOOK_SECONDS):
            return False
    return not abort.is_set()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
