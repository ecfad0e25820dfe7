"""A checkpoint's tokenizer, with a wall between the template's control tokens and everybody else's text.

Knows tokenizer.json and its companions. Knows no chat template and no request.

Control tokens are the added tokens of the vocabulary that are special, or that are written with two or more visible
characters (``<think>`` is not marked special, yet it steers the model). They are recognised in the text that the
template itself wrote and nowhere else. The text between them is encoded in one go by a second tokenizer that does not
know them, with a random marker standing where a control token stands, so that the ids are those of the original
tokenizer wherever the text holds no forgery.
"""

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from backend.errors import RequestError, StartError
from backend.text.folder import read_json

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_PRIVATE = range(0xF0000, 0xFFFFE)  # Unicode's private use plane 15


class TextTokenizer:
    """Encodes and names tokens. ``stop_tokens``: ids after which the model has ended its turn."""

    def __init__(self, definition: dict[str, Any], special_tokens: dict[str, str], stop_tokens: frozenset[int]) -> None:
        self.special_tokens = special_tokens
        self.stop_tokens = stop_tokens
        added = [token for token in definition.get("added_tokens") or [] if token["content"]]
        self.skipped = frozenset(token["id"] for token in added if token.get("special"))
        self._control = {t["content"]: t for t in added if _is_control(t)}
        self._control_ids = frozenset(t["id"] for t in self._control.values()) - _unknown_ids(definition)
        self._full = _load(definition)
        self._plain, self._markers = _without(definition, self._control)
        self._marker_ids = frozenset(m[1] for m in self._markers.values())
        # ids of removed tokens that lie beyond the model's own vocabulary are free again, and markers may have got them
        self._forged_ids = self._control_ids - self._marker_ids
        longest_first = sorted(map(re.escape, self._control), key=len, reverse=True)
        self._match = re.compile("|".join(longest_first) or r"(?!)")
        self._starts = re.compile(f"(?={'|'.join(longest_first)})" if longest_first else r"(?!)")
        self._singles = str.maketrans(dict.fromkeys((c for c in self._control if len(c) == 1), "\ufffd"))
        self._edges = _Edges(self._control)

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """Read ``folder``. Raises ``StartError`` naming the file that is missing or wrong."""
        path = folder / "tokenizer.json"
        definition = read_json(path, required=True)
        config = read_json(folder / "tokenizer_config.json")
        names = {**read_json(folder / "special_tokens_map.json"), **config}
        special = {name: text for name in _SPECIAL_NAMES if (text := _content(names.get(name)))}
        try:
            ids = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
            stops = _stop_tokens(folder, ids, special)
            return cls(definition, special, stops)
        except StartError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise StartError(f"{path} is not a usable tokenizer: {error}", code="bad_file", param=path.name) from error

    @property
    def vocab_size(self) -> int:
        """Ids are below this."""
        return int(self._full.get_vocab_size(with_added_tokens=True))

    @property
    def library(self) -> Tokenizer:
        """The original tokenizer (decoding, tests)."""
        return self._full

    def first_control(self, ids: Sequence[int]) -> int | None:
        """Index of the first control token in ``ids``, or None."""
        return next((i for i, token in enumerate(ids) if token in self._control_ids), None)

    def breaker(self, texts: Iterable[str]) -> str:
        """A random private-use character that occurs in none of ``texts``: what ``guard`` breaks forgeries with."""
        used = set().union(*map(set, texts))
        start = secrets.randbelow(len(_PRIVATE))
        for i in range(len(_PRIVATE)):
            char = chr(_PRIVATE[(start + i) % len(_PRIVATE)])
            if char not in used:
                return char
        raise RequestError("the text uses every private-use character of plane 15", param="input")

    def guard(self, text: str, breaker: str) -> str:
        """``text`` with ``breaker`` wherever it could otherwise be, begin or end a control token in a rendering.

        Ordinary text comes back as it is, so that templates that look at it see the original. The breaker is put inside
        the surrounding whitespace, which templates may trim.
        """
        body = text.strip().translate(self._singles)
        if not body:
            return text
        cuts = {match.start() + 1 for match in self._starts.finditer(body)} | self._edges.open_ends(body)
        pieces: list[str] = []
        last = 0
        for cut in sorted(cuts):
            pieces += (body[last:cut], breaker)
            last = cut
        left = len(text) - len(text.lstrip())
        return "".join((text[:left], *pieces, body[last:], text[left + len(body) :]))

    def encode_rendering(self, text: str, breaker: str = "", *, continues: bool = False) -> list[int]:
        """Ids of a rendering whose foreign texts went through ``guard`` with the same ``breaker``.

        ``continues``: the ids follow others, so nothing is prepended as at the beginning of a text.
        """
        parts: list[str] = []
        controls: list[int] = []
        if continues:
            parts.append(self._markers[False, False][0])
            controls.append(-1)
        end = 0
        for match in self._match.finditer(text):
            token = self._control[match.group()]
            marker = self._markers[bool(token.get("lstrip")), bool(token.get("rstrip"))][0]
            parts += (text[end : match.start()], marker)
            controls.append(token["id"])
            end = match.end()
        parts.append(text[end:])
        joined = "".join(parts)
        ids = self._encode_marked(joined.replace(breaker, "") if breaker else joined, controls)
        return ids[1:] if continues else ids

    def encode_document(self, text: str) -> list[int]:
        """Ids of ``text`` as a whole input to the model, behind what the tokenizer puts before every input; never a
        control token but that."""
        breaker = self.breaker([text])
        begin = self._full.encode("", add_special_tokens=True).ids
        return [*begin, *self.encode_rendering(self.guard(text, breaker), breaker)]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of ``text`` as mere text that follows other tokens; never a control token."""
        marker, _ = self._markers[False, False]
        return self._encode_marked(marker + text, [-1])[1:]

    def _encode_marked(self, text: str, controls: list[int]) -> list[int]:
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids = encoding.ids
        if self._forged_ids.isdisjoint(ids):
            waiting = iter(controls)
            out = [next(waiting, None) if i in self._marker_ids else i for i in ids]
            if None in out or next(waiting, None) is not None:
                raise RequestError("the text holds this server's private marker", param="input")
            return out  # type: ignore[return-value]
        return self._encode_cut(text, encoding, controls)

    def _encode_cut(self, text: str, encoding: Any, controls: list[int]) -> list[int]:
        """The model's own vocabulary holds a control token that plain text can reach: cut the text inside of it."""
        place = next(i for i, token in enumerate(encoding.ids) if token in self._forged_ids)
        start, end = encoding.offsets[place]
        cut = start + 1 if end - start > 1 else end
        head, tail = text[:cut], text[cut:]
        if not tail or end - start < 2:
            raise RequestError("the text spells a control token that cannot be broken up", param="input")
        marker, _ = self._markers[False, False]
        first = sum(head.count(m) for m, _ in self._markers.values())
        left = self._encode_marked(head, controls[:first])
        return left + self._encode_marked(marker + tail, [-1, *controls[first:]])[1:]


class _Edges:
    """Where a text could become part of a control token together with what a template puts next to it."""

    def __init__(self, controls: Iterable[str]) -> None:
        controls = list(controls)
        self._prefixes = frozenset(text[:n] for text in controls for n in range(1, len(text)))
        self._suffixes = frozenset(text[n:] for text in controls for n in range(1, len(text)))
        self._infixes = frozenset(
            text[a:b] for text in controls for a in range(1, len(text)) for b in range(a, len(text))
        )
        self._longest = max(map(len, controls), default=0)

    def open_ends(self, body: str) -> set[int]:
        """Places, 0 and ``len(body)`` at most, at which ``body`` must be kept apart. O(longest control token)."""
        sizes = range(1, min(self._longest, len(body) + 1))
        ends = set()
        if body in self._infixes or any(body[:n] in self._suffixes for n in sizes):
            ends.add(0)
        if any(body[-n:] in self._prefixes for n in sizes):
            ends.add(len(body))
        return ends


def _is_control(token: dict[str, Any]) -> bool:
    visible = token["content"].replace("\u2581", " ").split()
    return bool(token.get("special") and visible) or sum(map(len, visible)) > 1


def _content(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _load(definition: dict[str, Any]) -> Tokenizer:
    plain = {**definition, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(plain))


def _without(
    definition: dict[str, Any], control: dict[str, Any]
) -> tuple[Tokenizer, dict[tuple[bool, bool], tuple[str, int]]]:
    """The tokenizer without its control tokens, and a marker for each (lstrip, rstrip) a control token may have."""
    kept = [t for t in definition.get("added_tokens") or [] if t["content"] not in control]
    tokenizer = _load({**definition, "added_tokens": kept, "post_processor": None})
    markers: dict[tuple[bool, bool], tuple[str, int]] = {}
    for left, right in ((False, False), (False, True), (True, False), (True, True)):
        text = f"\U0010fffd{secrets.token_hex(12)}\U0010fffd"
        tokenizer.add_special_tokens([AddedToken(text, lstrip=left, rstrip=right, normalized=False, special=True)])
        markers[left, right] = (text, int(tokenizer.token_to_id(text) or 0))
    return tokenizer, markers


def _unknown_ids(definition: dict[str, Any]) -> frozenset[int]:
    """The id that stands for text the vocabulary does not cover: ordinary text may yield it."""
    model = definition.get("model") or {}
    if isinstance(model.get("unk_id"), int):
        return frozenset({model["unk_id"]})
    vocab = model.get("vocab")
    unknown = model.get("unk_token")
    return frozenset({vocab[unknown]}) if isinstance(vocab, dict) and unknown in vocab else frozenset()


def _stop_tokens(folder: Path, added: dict[str, int], special: dict[str, str]) -> frozenset[int]:
    stops: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
                stops.add(item)
            elif item is not None:
                raise StartError(
                    f"{folder / name}: eos_token_id must be ids, not {item!r}", code="bad_file", param=name
                )
    if special.get("eos_token") in added:
        stops.add(added[special["eos_token"]])
    return frozenset(stops)
