"""Load over an OpenAI-compatible ``/v1/chat/completions`` as server-sent events; the history goes along each turn."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec

from backend.cli.bench.statistics import Observation
from backend.cli.bench.target import AnswerFailed, Dialogue
from backend.cli.bench.workload import Turn

PATH = "/v1/chat/completions"
OPEN_SECONDS = 30.0
SHOWN_CHARACTERS = 200


def completions_url(url: str) -> str:
    """The endpoint for a server given with or without its path.

    >>> completions_url("http://127.0.0.1:8000/v1")
    'http://127.0.0.1:8000/v1/chat/completions'
    """
    bare = url.rstrip("/")
    return bare if bare.endswith(PATH) else bare.removesuffix("/v1") + PATH


class CompletionsTarget:
    """``extra`` is merged into every request body; a field that is None there is left out."""

    def __init__(self, url: str, api_key: str | None, extra: dict[str, Any]) -> None:
        self._url = completions_url(url)
        self._extra = extra
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(None, connect=OPEN_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    async def open(self, system: str) -> Dialogue:
        """A conversation; nothing is sent yet."""
        return CompletionsDialogue(self, system)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def stream(self, messages: list[dict[str, str]], max_tokens: int) -> AsyncIterator[dict[str, Any]]:
        """The chunks of one completion. Raises ``AnswerFailed`` for an HTTP error, naming status and message."""
        body = {
            "messages": messages,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        } | self._extra
        body = {name: value for name, value in body.items() if value is not None}
        async with self._client.stream("POST", self._url, json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                raise AnswerFailed(f"HTTP {response.status_code}: {text[:SHOWN_CHARACTERS]}")
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                yield msgspec.json.decode(data)
        raise AnswerFailed("the stream ended without [DONE]")


class CompletionsDialogue:
    """The history of one conversation, with the server's own answers in it."""

    def __init__(self, target: CompletionsTarget, system: str) -> None:
        self._target = target
        self._messages = [{"role": "system", "content": system}]

    async def say(self, turn: Turn, seen: Observation) -> None:
        """See ``Dialogue``."""
        self._messages.append({"role": "user", "content": turn.user})
        pieces: list[str] = []
        seen.sent_s = time.perf_counter()
        async for chunk in self._target.stream(self._messages, turn.max_tokens):
            if error := chunk.get("error"):
                raise AnswerFailed(
                    str(error.get("message", error) if isinstance(error, dict) else error)[:SHOWN_CHARACTERS]
                )
            if text := _content(chunk):
                seen.frames_s.append(time.perf_counter())
                pieces.append(text)
            if usage := chunk.get("usage"):
                _take_usage(usage, seen)
        self._messages.append({"role": "assistant", "content": "".join(pieces)})

    async def close(self) -> None:
        """Nothing is held between turns."""


def _content(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


def _take_usage(usage: dict[str, Any], seen: Observation) -> None:
    seen.prompt_tokens = usage.get("prompt_tokens")
    seen.output_tokens = usage.get("completion_tokens")
    seen.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
