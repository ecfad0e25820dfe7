"""What a ``response.create`` asks for, checked: unsupported fields refused, messages and sampling made of the rest.

Knows the event's fields. Knows no session state.
"""

from backend.errors import RequestError
from backend.server.events import InputItem, ResponseCreate
from backend.server.limits import Limits
from backend.server.messages import check_count, message
from backend.server.prompts import PromptSource
from backend.server.sampling import Asked
from backend.text.template import Message


def unsupported(param: str, why: str = "is not supported") -> RequestError:
    """The refusal of a field that would change the answer."""
    return RequestError(f"{param} {why}", code="unsupported_parameter", param=param)


def refuse_unsupported(event: ResponseCreate) -> None:
    """Raises ``RequestError`` for the first field that asks for what this server cannot do."""
    form = event.text.format.type if event.text and event.text.format else "text"
    asked = {
        "tools": bool(event.tools),
        "tool_choice": event.tool_choice not in (None, "auto", "none"),
        "text.format": form != "text",
        "text.verbosity": bool(event.text and event.text.verbosity not in (None, "medium")),
        "reasoning.effort": bool(event.reasoning and event.reasoning.effort not in (None, "none")),
        "background": bool(event.background),
        "conversation": event.conversation is not None,
        "truncation": event.truncation not in (None, "disabled"),
    }
    for param, is_asked in asked.items():
        if is_asked:
            raise unsupported(param)


def check_metadata(metadata: dict[str, str] | None, limits: Limits) -> None:
    """Raises ``RequestError`` when there are too many pairs or one is too long."""
    if metadata and len(metadata) > limits.metadata_pairs:
        raise RequestError(f"at most {limits.metadata_pairs} pairs", param="metadata")
    if any(max(len(key), len(value)) > limits.metadata_chars for key, value in (metadata or {}).items()):
        raise RequestError(f"at most {limits.metadata_chars} characters each", param="metadata")


def sampling_of(event: ResponseCreate) -> Asked:
    """The fields that say how tokens are drawn, and whether their log-probabilities are reported: when they are to be
    included, or alternatives are asked for."""
    reported = bool(event.top_logprobs) or "message.output_text.logprobs" in (event.include or ())
    return Asked(
        temperature=event.temperature,
        top_k=event.top_k,
        top_p=event.top_p,
        seed=event.seed,
        max_tokens=event.max_output_tokens,
        stop=event.stop,
        ignore_eos=event.ignore_eos,
        logprobs=(event.top_logprobs or 0) if reported else None,
        max_tokens_name="max_output_tokens",
    )


def instructions_of(event: ResponseCreate, prompts: PromptSource, tenant: str) -> str | None:
    """The system prompt: given, or registered. Raises ``RequestError`` for an unknown prompt, or for both at once."""
    reference = event.prompt
    if reference is None:
        return event.instructions
    if event.instructions is not None:
        raise RequestError("give either prompt or instructions", param="instructions")
    return prompts.text(reference.id, tenant=tenant, version=reference.version, variables=reference.variables)


def messages_of(event: ResponseCreate, limits: Limits) -> list[Message]:
    """``input`` as messages. Raises ``RequestError`` naming the item."""
    if not event.input and event.generate is False:
        return []  # the system prompt alone may be warmed
    if event.input is None:
        raise RequestError("input is missing", param="input")
    if isinstance(event.input, str):
        return [{"role": "user", "content": event.input}]
    check_count(len(event.input), "input", limits)
    return [_item(item, f"input[{i}]", limits) for i, item in enumerate(event.input)]


def _item(item: InputItem, where: str, limits: Limits) -> Message:
    if item.type != "message":
        raise RequestError(
            f"{where}: items of type {item.type!r} are not supported", code="unsupported_content", param=f"{where}.type"
        )
    return message(item.role, item.content, where, limits)
