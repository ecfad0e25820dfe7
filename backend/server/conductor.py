"""Carries out what responses ask for: prompts made, requests handed to the engine and heard, turns saved.

Knows asyncio, the service and the core; no socket. Its tasks outlive the sockets whose responses they serve.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from backend.engine.messages import Output, Started
from backend.errors import BanyanError, EngineError
from backend.server.conversations import ConversationStore
from backend.server.effects import Abandon, Generate, Prepare, RunEffect, Save
from backend.server.errors import unexpected
from backend.server.responses import Responses
from backend.text.conversation import Prompt

if TYPE_CHECKING:
    from backend.server.service import ChatService, MeasuredGeneration

_INLINE_CHARS = 16_384  # tokenised within a few ms; more goes to a thread so that other streams do not wait
_SAVE_SECONDS = 5.0
_TICK_SECONDS = 0.5

_log = logging.getLogger("banyan.server")


class Conductor:
    """``responses`` is the core that it serves."""

    def __init__(self, service: "ChatService", store: ConversationStore) -> None:
        self.responses = Responses(
            service.model,
            store,
            self._act,
            new_request=service.engine.next_request_id,
            new_id=service.new_id,
            position=service.queue_position,
        )
        self._service = service
        self._generations: dict[int, MeasuredGeneration] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> float:
        """Seconds of the service's clock."""
        return self._service.clock()

    async def tick_forever(self) -> None:
        """Let time pass for responses that have lost their readers; until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.responses.tick(self.now)

    def wall(self) -> int:
        """Unix time."""
        return int(time.time())

    def _act(self, effect: RunEffect) -> None:
        match effect:
            case Prepare():
                if effect.blocks or effect.size_chars > _INLINE_CHARS:
                    self._spawn(self._prepare_in_thread(effect))
                else:
                    self.responses.prepared(effect.key, _result(effect), self.now)
            case Generate():
                self._generate(effect)
            case Abandon(key):
                if generation := self._generations.pop(key, None):
                    generation.cancel()
            case Save():
                self._spawn(self._save(effect))

    async def _prepare_in_thread(self, effect: Prepare) -> None:
        result = await asyncio.to_thread(_result, effect)
        self.responses.prepared(effect.key, result, self.now)

    def _generate(self, effect: Generate) -> None:
        key = effect.submit.request
        try:
            generation = self._service.generate(effect.submit, self.now)
        except BanyanError as error:
            self.responses.engine_gone(key, error, self.now)
            return
        self._generations[key] = generation
        generation.listen(partial(self._hear, key, generation))

    def _hear(self, key: int, generation: "MeasuredGeneration", event: Started | Output | None) -> None:
        """Called within whatever reads the engine: nothing is raised."""
        error: BanyanError | None = None
        try:
            if event is not None:
                self.responses.engine_event(key, event, self._service.clock())
                if not (isinstance(event, Output) and event.finish):
                    return
        except Exception:
            _log.exception("a response broke")
            error = unexpected()
        generation.cancel()
        self._generations.pop(key, None)
        self.responses.engine_gone(key, error or EngineError("the engine ended it without a word"), self.now)

    async def _save(self, effect: Save) -> None:
        saving = asyncio.to_thread(self.responses.store.save, effect.tenant, effect.response_id, effect.turn)
        try:
            await asyncio.wait_for(saving, _SAVE_SECONDS)
            stored = True
        except Exception as error:
            _log.error("response %s could not be stored: %s", effect.response_id, error)
            stored = False
        self.responses.saved(effect.key, stored, self.now)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _result(effect: Prepare) -> Prompt | BanyanError:
    try:
        return effect.work()
    except BanyanError as error:
        return error
    except Exception:
        _log.exception("a prompt could not be made")
        return unexpected()
