"""Registered system prompts, read from a JSON file. Knows no templates and no tokens."""

from pathlib import Path

import msgspec

from backend.errors import RequestError, StartError


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


class PromptRegistry:
    """Finds prompts by their exact id."""

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

    def text(self, prompt_id: str) -> str:
        """The system prompt ``prompt_id``. Raises ``RequestError`` with code ``prompt_not_found``."""
        try:
            return self._prompts[prompt_id].system_prompt
        except KeyError:
            raise RequestError(
                f"there is no prompt {prompt_id!r}", code="prompt_not_found", status=404, param="prompt.id"
            ) from None

    def listed(self) -> list[ListedPrompt]:
        """All of them, in the file's order."""
        return [
            ListedPrompt(p.id, p.name, p.blurb, p.system_prompt, p.sample_questions) for p in self._prompts.values()
        ]
