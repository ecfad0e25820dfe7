"""The system prompts that a tenant may use: its own, others' public ones, and the bundled ones for the local tenant.

A ``PromptSource`` over the directory, in memory. Also recognizes the prompt that a conversation began with, and holds
tenants with locked prompts to these.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.errors import RequestError
from backend.server.prompts import ListedPrompt, PromptRegistry, Question, fill
from backend.tenants.directory import Directory
from backend.tenants.names import LOCAL
from backend.tenants.prompt_store import Prompt, PromptVersion
from backend.text.template import Message

VARIABLE = re.compile(r"\{\{ *[A-Za-z_][A-Za-z0-9_]{0,63} *\}\}")
_LOCKED_VALUE_CHARS = 500


class TenantPrompts:
    """``bundled``: what the local tenant has besides its own."""

    def __init__(self, directory: Directory, bundled: PromptRegistry | None = None) -> None:
        self._directory = directory
        self.bundled = bundled or PromptRegistry()

    def text(
        self,
        prompt_id: str,
        *,
        tenant: str = LOCAL,
        version: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The system prompt, variables filled in; others' are called ``owner/id``. Raises ``RequestError``."""
        owner, slash, name = prompt_id.rpartition("/")
        prompt = self._visible(tenant, owner if slash else tenant, name)
        if prompt is None and tenant == LOCAL:
            return self.bundled.text(prompt_id, version=version, variables=variables)
        if prompt is None:
            raise _not_found(prompt_id, "prompt.id")
        found = self._version(prompt, version)
        if found is None or (prompt.tenant != tenant and not found.public):
            raise RequestError(
                f"there is no prompt {prompt_id[:100]!r} in version {str(version)[:100]!r}",
                code="prompt_not_found",
                status=404,
                param="prompt.version",
            )
        return fill(found.text, variables)

    def listed(self, tenant: str = LOCAL) -> list[ListedPrompt]:
        """All that the tenant may use."""
        found = [self._entry(tenant, prompt) for prompt in self._directory.prompts_of(tenant)]
        known = {entry.id for entry in found}
        bundled = self.bundled.listed() if tenant == LOCAL else []
        return [*found, *(entry for entry in bundled if entry.id not in known)]

    def versions(self, tenant: str, prompt_id: str) -> tuple[list[PromptVersion], int]:
        """The versions that the tenant may name, the oldest first, and which is the latest. Raises ``RequestError``."""
        owner, slash, name = prompt_id.rpartition("/")
        prompt = self._visible(tenant, owner if slash else tenant, name)
        if prompt is not None:
            known = [v for v in self._directory.versions_of(tenant) if (v.tenant, v.id) == (prompt.tenant, prompt.id)]
            return sorted(known, key=lambda version: version.version), prompt.latest
        bundled = {entry.id: entry.text for entry in self.bundled.listed()} if tenant == LOCAL else {}
        if prompt_id not in bundled:
            raise _not_found(prompt_id, "id")
        return [PromptVersion(LOCAL, prompt_id, 1, bundled[prompt_id], True, False, "soft", 0)], 1

    def recognized(self, tenant: str, messages: Sequence[Message]) -> PromptVersion | None:
        """The version that a conversation begins with: its system message is that text, variables filled in or not."""
        if not messages or messages[0]["role"] != "system":
            return None
        system = messages[0]["content"]
        found = self._directory.versions_saying(tenant, system) or [
            version for version in self._directory.versions_with_variables(tenant) if _begins_as(version, system)
        ]
        return max(found, key=lambda version: (version.tenant == tenant, version.locked, version.version), default=None)

    def imposed(self, tenant: str, messages: Sequence[Message]) -> str | None:
        """The tenant's locked prompt, where there is just one and it has no variables, for a conversation without a
        system message: so locks hold on protocols that cannot name a prompt."""
        locked = [prompt for prompt in self._directory.own_prompts(tenant) if self._is_locked(prompt)]
        if len(locked) != 1 or any(message["role"] == "system" for message in messages):
            return None
        text = self._directory.latest(locked[0]).text
        return None if VARIABLE.search(text) else text

    def refuse_own(self, tenant: str, messages: Sequence[Message], found: PromptVersion | None) -> None:
        """Raises ``RequestError`` (403, ``prompt_locked``) when the tenant has locked prompts, and the conversation
        does not stand on one of them alone."""
        locked = [prompt.id for prompt in self._directory.own_prompts(tenant) if self._is_locked(prompt)]
        if not locked:
            return
        systems = sum(message["role"] == "system" for message in messages)
        if systems == 1 and found is not None and found.tenant == tenant and found.locked:
            return
        raise RequestError(
            f"this tenant's callers use its locked system prompts ({', '.join(locked[:10])}), and no others",
            code="prompt_locked",
            status=403,
            param="prompt",
        )

    def _visible(self, tenant: str, owner: str, name: str) -> Prompt | None:
        prompt = self._directory.content.prompts.get((owner, name))
        if prompt is None or (owner != tenant and not self._directory.latest(prompt).public):
            return None
        return prompt

    def _version(self, prompt: Prompt, version: str | None) -> PromptVersion | None:
        if version is None:
            return self._directory.latest(prompt)
        if not re.fullmatch("[1-9][0-9]{0,8}", version):
            return None
        return self._directory.content.versions.get((prompt.tenant, prompt.id, int(version)))

    def _is_locked(self, prompt: Prompt) -> bool:
        return self._directory.latest(prompt).locked

    def _entry(self, tenant: str, prompt: Prompt) -> ListedPrompt:
        latest = self._directory.latest(prompt)
        name = prompt.id if prompt.tenant == tenant else f"{prompt.tenant}/{prompt.id}"
        questions = [Question(question.question, question.answer) for question in prompt.questions]
        return ListedPrompt(name, prompt.name, prompt.description, latest.text, questions)


def _not_found(prompt_id: str, param: str) -> RequestError:
    return RequestError(f"there is no prompt {prompt_id[:100]!r}", code="prompt_not_found", status=404, param=param)


def _begins_as(version: PromptVersion, system: str) -> bool:
    """Whether ``system`` is the version's text, or that with something in the place of each variable; in a locked one
    with a short line, so that a value cannot be a system prompt of its own."""
    first, *rest = VARIABLE.split(version.text)
    if not rest:
        return version.text == system
    if not system.startswith(first):
        return False
    at = len(first)
    for index, piece in enumerate(rest):
        found = system.find(piece, at) if index < len(rest) - 1 else len(system) - len(piece)
        if found < at or not system.startswith(piece, found):
            return False
        value = system[at:found]
        if version.locked and ("\n" in value or len(value) > _LOCKED_VALUE_CHARS):
            return False
        at = found + len(piece)
    return True
