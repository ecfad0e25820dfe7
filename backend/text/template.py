"""The checkpoint's own chat template, rendered in jinja2's sandbox as ``transformers`` renders it.

Knows jinja and messages. Knows no tokens. Templates come from the model folder only, never from a client.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from backend.errors import RequestError, StartError
from backend.text.folder import read_json

Message = Mapping[str, str]  # role, content, and what else the client gave as plain text


class _Generation(Extension):
    """``{% generation %}``: marks the assistant's text for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own protocol

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


class ChatTemplate:
    """Renders messages to the text the model was trained on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """``special_tokens``: ``bos_token`` and the like, which templates refer to. Raises ``StartError``."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise StartError(f"the chat template cannot be compiled: {error}", code="bad_chat_template") from error

    @classmethod
    def load(cls, folder: Path, special_tokens: Mapping[str, str]) -> "ChatTemplate":
        """From ``chat_template.jinja``, else tokenizer_config.json, else chat_template.json. Raises ``StartError``."""
        path = folder / "chat_template.jinja"
        if path.is_file():
            try:
                return cls(path.read_text(encoding="utf-8"), special_tokens)
            except (OSError, ValueError) as error:
                raise StartError(f"{path} cannot be read: {error}", code="bad_file", param=path.name) from error
        for name in ("tokenizer_config.json", "chat_template.json"):
            source = _default(read_json(folder / name).get("chat_template"))
            if source:
                return cls(source, special_tokens)
        raise StartError(
            f"{folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
            "a base model cannot chat",
            code="no_chat_template",
            param="tokenizer_config.json",
        )

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The conversation as text. Raises ``RequestError`` with the template's own words when it refuses it."""
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens,
            )
        except Exception as error:  # a template is a program of somebody else's: whatever it raises, this request fails
            raise RequestError(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error


def _default(template: Any) -> str:
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # jinja's own filter escapes HTML characters, which no model has seen
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
