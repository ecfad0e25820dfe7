"""The exact token ids of a conversation.

Knows template and tokenizer. Knows no sockets and no engine. The ids of the next turn are those of the last one (prompt
and answer, as the model saw and drew them) and then only what the new messages add: the end of the answer's turn, if
the model did not write it, the messages, and the beginning of the next answer. What is added is read off two
renderings, one that ends before the last answer and one that goes on after it; where a template rewrites earlier turns,
so that it cannot be read off, the whole history is rendered anew.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from backend.errors import RequestError
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate, Message
from backend.text.tokenizer import TextTokenizer

_ANSWER = "ok"  # stands for an answer whose ids are known already; templates do not look into it


class Prompt(msgspec.Struct, frozen=True):
    """Ids to compute an answer for. The first ``system_tokens`` precede the first user's words when there is a system
    message; the first ``history_tokens`` were prompt or answer of this conversation before."""

    ids: "array[int]"
    messages: tuple[Message, ...]
    system_tokens: int = 0
    history_tokens: int = 0


class Conversation(msgspec.Struct, frozen=True):
    """A finished turn: all messages, the answer last, and all ids (little-endian uint32) as the engine had them."""

    ids: "array[int]"
    messages: tuple[Message, ...]
    system_tokens: int = 0


class ConversationEncoder:
    """Turns messages into prompts. Thread-safe."""

    def __init__(self, tokenizer: TextTokenizer, template: ChatTemplate, detokenizer: Detokenizer) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._detokenizer = detokenizer
        self._system_size = lru_cache(maxsize=32)(self._measure_system)

    def begin(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a whole history. Raises ``RequestError`` when the template refuses it."""
        ids = array("I", self._encode(messages))
        system = self._system_size(messages[0]["content"]) if messages[0]["role"] == "system" else 0
        return Prompt(ids, tuple(messages), min(system, len(ids)))

    def extend(self, past: Conversation, messages: Sequence[Message]) -> Prompt:
        """The prompt of the turn after ``past``: its ids and then only those of ``messages``."""
        together = (*past.messages, *messages)
        tail = self._tail(past.messages[:-1], messages)
        if tail is None:
            return self.begin(together)
        ids, tail = self._join(past.ids, tail)
        return Prompt(ids + array("I", tail), together, past.system_tokens, len(ids))

    def finish(self, prompt: Prompt, tokens: Sequence[int], text: str, cut: bool) -> Conversation:
        """The turn as the next one sees it. ``cut``: ``text`` ends before a stop string that ``tokens`` still hold."""
        kept = self._cut(tokens, text) if cut else list(tokens)
        answer = {"role": "assistant", "content": text}
        return Conversation(prompt.ids + array("I", kept), (*prompt.messages, answer), prompt.system_tokens)

    def system_prefix(self, text: str) -> "array[int]":
        """The ids that every conversation on the system message ``text`` begins with: those before the first user's
        words. Raises ``RequestError`` when the template refuses it."""
        system = {"role": "system", "content": text}
        one, other = (self._encode([system, {"role": "user", "content": word}]) for word in ("a", "7"))
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return array("I", one[:same])

    def system_prompt_alone(self, text: str) -> Prompt:
        """What every conversation on the system message ``text`` begins with, as a prompt of its own, to be computed
        before anybody asks. Raises ``RequestError`` when there is nothing, or the template refuses it."""
        ids = self.system_prefix(text)
        if not ids:
            raise RequestError("this model's template has no place for a system message", param="instructions")
        return Prompt(ids, ({"role": "system", "content": text},), len(ids))

    def end_of_turn(self) -> int | None:
        """The control token that this template writes directly after an answer, if it writes one."""
        question = {"role": "user", "content": "x"}
        try:
            head = self._template.render([question], add_generation_prompt=True)
            whole = self._template.render(
                [question, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False
            )
        except RequestError:
            return None
        closing = (_after_answer(head, whole) or "").lstrip()
        ids = self._tokenizer.encode_rendering(closing, continues=True)
        return ids[0] if ids and self._tokenizer.first_control(ids[:1]) == 0 else None

    def _tail(self, before: Sequence[Message], messages: Sequence[Message]) -> list[int] | None:
        """Ids from the end of the last answer to the beginning of the next one; None when they cannot be read off."""
        breaker = self._breaker([*before, *messages])
        old = self._guarded(before, breaker)
        answer = {"role": "assistant", "content": _ANSWER}
        head = self._template.render(old, add_generation_prompt=True)
        whole = self._template.render([*old, answer, *self._guarded(messages, breaker)], add_generation_prompt=True)
        tail = _after_answer(head, whole)
        return None if tail is None else self._tokenizer.encode_rendering(tail, breaker, continues=True)

    def _join(self, ids: "array[int]", tail: list[int]) -> tuple["array[int]", list[int]]:
        """Make the end of a turn appear once, whether or not the model wrote it."""
        if not ids or ids[-1] not in self._tokenizer.stop_tokens:
            return ids, tail
        first = self._tokenizer.first_control(tail)
        if first is not None and tail[first] == ids[-1]:
            return ids, tail[first + 1 :]
        return ids[:-1], tail  # the model ended with another token than the one the template writes

    def _cut(self, tokens: Sequence[int], text: str) -> list[int]:
        """The longest beginning of ``tokens`` whose text lies within ``text``, and the rest of it encoded anew."""
        stream = self._detokenizer.stream()
        shown, kept, kept_text = "", 0, ""
        for index, token in enumerate(tokens):
            shown += stream.push((token,))
            if not text.startswith(shown):
                break
            if not stream.pending:
                kept, kept_text = index + 1, shown
        rest = text[len(kept_text) :]
        return [*tokens[:kept], *(self._tokenizer.encode_plain(rest) if rest else ())]

    def _measure_system(self, text: str) -> int:
        """Number of ids before the first user's words, for a system message ``text``."""
        return len(self.system_prefix(text))

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        breaker = self._breaker(messages)
        text = self._template.render(self._guarded(messages, breaker), add_generation_prompt=True)
        return self._tokenizer.encode_rendering(text, breaker)

    def _breaker(self, messages: Sequence[Message]) -> str:
        return self._tokenizer.breaker([self._template.source, *(text for m in messages for text in m.values())])

    def _guarded(self, messages: Sequence[Message], breaker: str) -> list[Message]:
        guard = self._tokenizer.guard
        return [{k: v if k == "role" else guard(v, breaker) for k, v in m.items()} for m in messages]


def _after_answer(head: str, whole: str) -> str | None:
    """What ``whole`` has after the answer that follows ``head``; None when ``whole`` does not go on from ``head``.

    Some templates put a space before an answer that is not in the prompt for it: there the model draws it itself.
    """
    if not whole.startswith(head):
        return None
    rest = whole[len(head) :].lstrip()
    return rest[len(_ANSWER) :] if rest.startswith(_ANSWER) else None
