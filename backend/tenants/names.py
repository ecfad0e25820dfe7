"""What names look like, and bounds on text. Names go into keys, paths and metrics, so they are plain."""

import re

from backend.errors import RequestError

LOCAL = "local"
"""The one tenant of a server that has none configured."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PROMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_tenant_name(name: str) -> str:
    """``name`` when it is one that can be given. Raises ``RequestError``."""
    if not _NAME.fullmatch(name) or name == LOCAL:
        raise RequestError(
            f"{name[:100]!r} is not a tenant's name: 1 to 63 of a-z, 0-9 and -, a letter or digit at both ends, "
            f"and not {LOCAL!r}",
            param="name",
        )
    return name


def check_namespace(name: str) -> str:
    """``name`` when it is empty or a namespace. Raises ``RequestError``."""
    if name and not _NAME.fullmatch(name):
        raise RequestError(f"{name[:100]!r} is not a namespace: 1 to 63 of a-z, 0-9 and -", param="namespace")
    return name


def check_prompt_id(prompt_id: str) -> str:
    """``prompt_id`` when it is one. Raises ``RequestError``."""
    if not _PROMPT.fullmatch(prompt_id):
        raise RequestError(
            f"{prompt_id[:100]!r} is not a prompt's id: 1 to 64 letters, digits, '.', '_' and '-', a letter or digit "
            "first",
            param="id",
        )
    return prompt_id


def check_text(value: str, param: str, most: int) -> str:
    """``value`` when a database can keep it and it has at most ``most`` characters. Raises ``RequestError``."""
    if len(value) > most:
        raise RequestError(f"{param} has {len(value)} characters, at most {most} are kept", param=param)
    if "\0" in value:
        raise RequestError(f"{param} holds a NUL character", param=param)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{param} is not valid Unicode", param=param) from None
    return value


def can_be_asked(name: str) -> bool:
    """Whether a database takes ``name`` in a query: what it does not take is the name of nothing."""
    return "\0" not in name and len(name) <= 200
