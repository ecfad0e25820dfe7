"""Log-probabilities as OpenAI's protocols show them. Knows tokens, their bytes and where they begin in the text; no
requests and no decoding.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from backend.engine.messages import TokenLogprobs

TokenBytes = Callable[[int], bytes]
"""See ``Detokenizer.token_bytes``."""


class ShownToken(NamedTuple):
    """A token of an answer; ``begin``: the character of the text at which it begins, or which it is a part of."""

    token: int
    logprobs: TokenLogprobs
    begin: int


class PromptToken(NamedTuple):
    """A token of a prompt, likewise; the first has no log-probabilities."""

    token: int
    logprobs: TokenLogprobs | None
    begin: int


class Alternative(msgspec.Struct):
    """A token that was likely. ``bytes``: a token may hold a part of a character only, which ``token`` then writes as
    escapes."""

    token: str
    bytes: list[int]
    logprob: float


class TokenEntry(msgspec.Struct):
    """A token that was drawn, and the most likely ones at its place."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[Alternative]


class TextLogprobs(msgspec.Struct):
    """One entry of each list for a token. ``top_logprobs`` by the token's text, the drawn one among them;
    ``text_offset``: the character of the choice's text at which it begins."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def token_entries(shown: Iterable[ShownToken], token_bytes: TokenBytes) -> list[TokenEntry]:
    """As in ``choices[i].logprobs.content`` of chat completions, and in ``output_text`` of responses."""
    entries = []
    for token, logprobs, _ in shown:
        data = token_bytes(token)
        top = [
            Alternative(_text(other), list(other), logprob)
            for other, logprob in zip(map(token_bytes, logprobs.top_tokens), logprobs.top_logprobs, strict=True)
        ]
        entries.append(TokenEntry(_text(data), list(data), logprobs.logprob, top))
    return entries


def text_logprobs(shown: Iterable[ShownToken | PromptToken], token_bytes: TokenBytes, offset: int) -> TextLogprobs:
    """As in ``choices[i].logprobs`` of completions; ``offset``: characters before the answer's text."""
    lists = TextLogprobs([], [], [], [])
    for token, logprobs, begin in shown:
        name = _name(token_bytes(token))
        lists.tokens.append(name)
        lists.text_offset.append(offset + begin)
        if logprobs is None:
            lists.token_logprobs.append(None)
            lists.top_logprobs.append(None)
            continue
        lists.token_logprobs.append(logprobs.logprob)
        tops = dict(zip(map(_name, map(token_bytes, logprobs.top_tokens)), logprobs.top_logprobs, strict=True))
        lists.top_logprobs.append({**tops, name: logprobs.logprob})
    return lists


def _name(data: bytes) -> str:
    """OpenAI's legacy form: what is no text is marked as bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
