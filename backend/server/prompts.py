"""Registered system prompts: how the server asks for them, and those of a JSON file. Knows no templates, no tokens."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from backend.errors import RequestError, StartError
from backend.text.template import Message

_ONLY_VERSION = "1"
_VARIABLE = re.compile(r"\{\{ *([A-Za-z_][A-Za-z0-9_]{0,63}) *\}\}")


class Question(msgspec.Struct, frozen=True):
    """A question that the prompt's facts answer."""

    question: str
    answer: str


class SystemPrompt(msgspec.Struct, frozen=True):
    """One entry of the file."""

    id: str
    name: str
    blurb: str
    system_prompt: str
    sample_questions: list[Question] = []


class ListedPrompt(msgspec.Struct, frozen=True):
    """One entry of ``GET /v1/prompts``."""

    id: str
    name: str
    description: str
    text: str
    questions: list[Question]
    object: str = "prompt"


class PromptSource(Protocol):
    """Where ``prompt {id, version?, variables?}`` of a request is looked up. Does not block."""

    def text(
        self, prompt_id: str, *, tenant: str, version: str | None = None, variables: Mapping[str, Any] | None = None
    ) -> str:
        """The system prompt, variables filled in. Raises ``RequestError``: ``prompt_not_found`` (404) when ``tenant``
        may not use it or it has no such version, ``invalid_request`` for variables that do not fit."""
        ...

    def listed(self, tenant: str) -> list[ListedPrompt]:
        """Those that ``tenant`` may use."""
        ...

    def imposed(self, tenant: str, messages: Sequence[Message]) -> str | None:
        """The system prompt that a conversation of ``tenant`` gets which brings none; None for one that brings its own,
        or where nothing is imposed."""
        ...


class PromptRegistry:
    """A ``PromptSource`` for everybody: exact ids, one version each, called 1."""

    def __init__(self, prompts: list[SystemPrompt] | None = None) -> None:
        self._prompts = {prompt.id: prompt for prompt in prompts or []}

    @classmethod
    def load(cls, path: Path) -> "PromptRegistry":
        """Read ``path``: a list of prompts. Raises ``StartError`` naming the file and the field."""
        try:
            prompts = msgspec.json.decode(path.read_bytes(), type=list[SystemPrompt])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StartError(f"{path} cannot be read as system prompts: {error}", param=path.name) from error
        if len({prompt.id for prompt in prompts}) != len(prompts):
            raise StartError(f"{path} has two prompts with one id", param=path.name)
        return cls(prompts)

    def text(
        self,
        prompt_id: str,
        *,
        tenant: str = "",
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The system prompt ``prompt_id``. Raises ``RequestError``."""
        found = self._prompts.get(prompt_id)
        if found is None or version not in (None, _ONLY_VERSION):
            which = f"{prompt_id!r}" if found is None else f"{prompt_id!r} in version {version!r}"
            param = "prompt.id" if found is None else "prompt.version"
            raise RequestError(f"there is no prompt {which}", code="prompt_not_found", status=404, param=param)
        return fill(found.system_prompt, variables)

    def listed(self, tenant: str = "") -> list[ListedPrompt]:
        """All of them, in the file's order."""
        return [
            ListedPrompt(p.id, p.name, p.blurb, p.system_prompt, p.sample_questions) for p in self._prompts.values()
        ]

    def imposed(self, tenant: str, messages: Sequence[Message]) -> str | None:
        """Nothing."""
        return None


def fill(text: str, variables: Mapping[str, Any] | None) -> str:
    """``text`` with each ``{{name}}`` replaced, once: what a value holds is never looked at again.

    Raises ``RequestError`` naming a variable that is missing, unknown or no string.
    """
    given = variables or {}
    wanted = set(_VARIABLE.findall(text))
    for name, value in given.items():
        if name not in wanted:
            raise RequestError(f"the prompt has no variable {name[:100]!r}", param="prompt.variables")
        if not isinstance(value, str):
            raise RequestError(f"the variable {name!r} must be a string", param=f"prompt.variables.{name}")
    if missing := sorted(wanted - set(given)):
        raise RequestError(f"the prompt wants the variable {missing[0]!r}", param=f"prompt.variables.{missing[0]}")
    return _VARIABLE.sub(lambda hit: str(given[hit[1]]), text)
