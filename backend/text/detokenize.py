"""Text from tokens, as they come: whole characters only, control tokens left out.

Knows how a tokenizer's decoder turns a token into bytes. Knows no requests. The bytes of all tokens run through one
incremental UTF-8 decoder, O(1) a token; a character whose bytes are spread over tokens appears when it is complete,
and what is still incomplete at the end never appears.
"""

import codecs
import json
from collections.abc import Callable, Iterable
from functools import partial

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from backend.text.tokenizer import TextTokenizer


class Detokenizer:
    """Makes one decoder per answer."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer.library
        self._skipped = tokenizer.skipped | tokenizer.stop_tokens
        self._table = _byte_table(self._tokenizer, self._skipped)
        self._strip = _strips_first_space(self._tokenizer)

    def token_bytes(self, token: int) -> bytes:
        """What stands for one token: its bytes, maybe part of a character; a control token's name; nothing for an id
        outside of the vocabulary."""
        if self._table is not None and 0 <= token < len(self._table) and self._table[token]:
            return self._table[token]
        if self._table is None and token not in self._skipped:
            return self._tokenizer.decode([token], skip_special_tokens=False).encode("utf-8", "replace")
        return (self._tokenizer.id_to_token(token) or "").encode("utf-8", "replace") if 0 <= token < 1 << 32 else b""

    def stream(self) -> "TextStream | LibraryStream":
        """A fresh decoder for one sequence of tokens."""
        if self._table is None:
            return LibraryStream(self._tokenizer, self._skipped)
        return TextStream(self._table, self._strip)


class TextStream:
    """Decoder over a table of the bytes of each token."""

    __slots__ = ("_rest", "_strip", "_table")

    def __init__(self, table: list[bytes], strip_first_space: bool) -> None:
        self._table = table
        self._strip = strip_first_space
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether the last token ended within a character."""
        return bool(self._rest)

    def push(self, tokens: Iterable[int]) -> str:
        """The text that is certain now. Ids outside of the vocabulary have no text."""
        table = self._table
        size = len(table)
        data = b"".join([table[token] for token in tokens if 0 <= token < size])
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        data = self._rest + data
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._rest = data[used:]
        return text


class LibraryStream:
    """Decoder for tokenizers whose tokens have no bytes of their own (WordPiece and the like)."""

    def __init__(self, tokenizer: Tokenizer, skipped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._stream = DecodeStream(skip_special_tokens=True)
        self.pending = False

    def push(self, tokens: Iterable[int]) -> str:
        """The text that is certain now."""
        pieces = [self._stream.step(self._tokenizer, token) for token in tokens if token not in self._skipped]
        if pieces:
            self.pending = pieces[-1] is None
        return "".join(piece or "" for piece in pieces)


def _decoders(tokenizer: Tokenizer) -> list[dict[str, object]]:
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    return decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]


def _strips_first_space(tokenizer: Tokenizer) -> bool:
    return any(
        (d.get("type") == "Strip" and d.get("content") == " " and d.get("start") == 1)
        or (d.get("type") == "Metaspace" and d.get("prepend_scheme", "always") != "never")
        for d in _decoders(tokenizer)
    )


def _byte_table(tokenizer: Tokenizer, skipped: frozenset[int]) -> list[bytes] | None:
    kinds = {d.get("type") for d in _decoders(tokenizer)}
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    rewrite: Callable[[str], bytes]
    if "ByteLevel" in kinds:
        rewrite = partial(_from_alphabet, _byte_alphabet())
    elif kinds & {"ByteFallback", "Metaspace"}:
        rewrite = _from_sentencepiece
    else:
        return None
    table = [b""] * (max(vocab.values(), default=-1) + 1)
    for text, token in vocab.items():
        if token not in skipped:
            table[token] = text.encode("utf-8", "replace") if text in added else rewrite(text)
    return table


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: visible Latin-1 stands for itself, the rest follows from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


def _from_alphabet(alphabet: dict[str, int], text: str) -> bytes:
    try:
        return bytes(alphabet[char] for char in text)
    except KeyError:  # written outside of the alphabet: the token is its own text
        return text.encode("utf-8", "replace")


def _from_sentencepiece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            pass
    return text.replace("\u2581", " ").encode("utf-8", "replace")
