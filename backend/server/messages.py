"""Messages of a request made into what a chat template takes. Knows roles and content parts, no protocol around."""

from collections.abc import Sequence

from backend.errors import RequestError
from backend.server.events import ContentPart
from backend.server.limits import Limits
from backend.text.template import Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEXT_PARTS = ("text", "input_text", "output_text")


def message(role: object, content: str | Sequence[ContentPart] | None, where: str, limits: Limits) -> Message:
    """One message; ``developer`` means ``system``. Parts are joined with a newline. Raises ``RequestError``."""
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
    return {"role": _ROLES[role], "content": _text(content, where, limits)}


def check_count(count: int, param: str, limits: Limits) -> None:
    """Raises ``RequestError`` when there are no messages or too many."""
    if not count:
        raise RequestError(f"{param} must hold at least one message", param=param)
    if count > limits.messages:
        raise RequestError(f"at most {limits.messages} messages, not {count}", param=param)


def _text(content: str | Sequence[ContentPart] | None, where: str, limits: Limits) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        raise RequestError(f"{where}.content must be text", param=f"{where}.content")
    if len(content) > limits.content_parts:
        raise RequestError(f"at most {limits.content_parts} parts in {where}.content", param=f"{where}.content")
    return "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part(part: ContentPart, where: str) -> str:
    if part.type not in _TEXT_PARTS:
        raise RequestError(
            f"{where}: {part.type!r} is not supported, only text", code="unsupported_content", param=where
        )
    if not isinstance(part.text, str):
        raise RequestError(f"{where}.text is missing", param=f"{where}.text")
    return part.text


def with_system(text: str | None, messages: Sequence[Message]) -> list[Message]:
    """``messages`` with one system message in front: ``text`` when given, then those they began with."""
    leading = 0
    while leading < len(messages) and messages[leading]["role"] == "system":
        leading += 1
    system = [*([text] if text is not None else []), *(m["content"] for m in messages[:leading])]
    front: list[Message] = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    return [*front, *messages[leading:]]
