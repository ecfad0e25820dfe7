"""How far the engine is with computing registered prompts. Knows the engine's report; shows nothing."""

import asyncio
from collections.abc import AsyncIterator

from backend.errors import EngineError
from backend.server.engine_settings import EngineSettings
from backend.server.service import ChatService

_LOOK_SECONDS = 0.2
_STANDS_STILL_SECONDS = 60.0  # a soft pin may be evicted again, and is cold then until somebody asks


async def warming(service: ChatService, settings: EngineSettings) -> AsyncIterator[tuple[int, int]]:
    """How many of how many prompts are computed, pinned ones and tenants' private ones, at each change until all are.

    Ends early when nothing has changed for a minute, or the engine is gone.
    """
    loop = asyncio.get_running_loop()
    before, changed = (0, 0), loop.time()
    while loop.time() - changed < _STANDS_STILL_SECONDS:
        try:
            pins = (await service.engine.inspect()).pins
        except EngineError:
            return
        done, total = settings.warmed
        now = (done + sum(pin.warm for pin in pins), total + len(pins))
        if now != before:
            before, changed = now, loop.time()
            yield now
        if now[0] == now[1]:
            return
        await asyncio.sleep(_LOOK_SECONDS)
