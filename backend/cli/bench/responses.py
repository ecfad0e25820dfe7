"""Load over our WebSocket: one socket per conversation, turns chained by ``previous_response_id``."""

import time
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from backend.cli.answer import Answer, create_event, responses_url
from backend.cli.bench.statistics import Observation
from backend.cli.bench.target import AnswerFailed, Dialogue
from backend.cli.bench.workload import Turn

OPEN_SECONDS = 30.0


class ResponsesTarget:
    """``extra`` is merged into every ``response.create`` (model, temperature and the like)."""

    def __init__(self, url: str, api_key: str | None, extra: dict[str, Any]) -> None:
        self._url = responses_url(url)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._extra = extra

    async def open(self, system: str) -> Dialogue:
        """Open a socket."""
        connection = await connect(
            self._url,
            additional_headers=self._headers,
            compression=None,
            proxy=None,
            open_timeout=OPEN_SECONDS,
            max_size=None,
        )
        return ResponsesDialogue(connection, system, self._extra)

    async def close(self) -> None:
        """Nothing is shared."""


class ResponsesDialogue:
    """One socket. The server keeps the history; a turn sends its message and, as the API asks, the instructions."""

    def __init__(self, connection: ClientConnection, system: str, extra: dict[str, Any]) -> None:
        self._connection = connection
        self._system = system
        self._extra = extra
        self._previous: str | None = None

    async def say(self, turn: Turn, seen: Observation) -> None:
        """See ``Dialogue``."""
        event = create_event(
            turn.user,
            instructions=self._system,
            previous_response_id=self._previous,
            max_output_tokens=turn.max_tokens,
            **self._extra,
        )
        answer = Answer()
        seen.sent_s = time.perf_counter()
        await self._connection.send(msgspec.json.encode(event), text=True)
        while not answer.done:
            message = await self._connection.recv()
            now = time.perf_counter()
            if answer.apply(msgspec.json.decode(message)):
                seen.frames_s.append(now)
        seen.prompt_tokens, seen.cached_tokens = answer.prompt_tokens, answer.cached_tokens
        seen.output_tokens = answer.output_tokens
        if answer.error:
            raise AnswerFailed(answer.error)
        self._previous = answer.response_id

    async def close(self) -> None:
        """Close the socket."""
        await self._connection.close()
