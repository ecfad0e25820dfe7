"""Writes the web UI's types of the WebSocket messages from the structs: ``python -m backend.server.typescript FILE``.

Knows JSON schema as msgspec writes it, and TypeScript. Knows no message.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from backend.server.events import ClientEvent, ServerEvent

_HEAD = """/**
 * The messages of the WebSocket, generated from the server's structs. Do not edit:
 * python -m backend.server.typescript web/src/model/wire.ts
 */
"""


def module(names: dict[str, Any]) -> str:
    """Exported types for each of ``names`` and all that they are made of."""
    references, components = msgspec.json.schema_components(list(names.values()), ref_template="{name}")
    parts = [_HEAD, *(_declaration(name, components[name]) for name in sorted(components))]
    parts += [f"export type {name} = {_type(schema)};\n" for name, schema in zip(names, references, strict=True)]
    return "\n".join(parts)


def _declaration(name: str, schema: dict[str, Any]) -> str:
    comment = f"/** {' '.join(schema['description'].split())} */\n" if "description" in schema else ""
    if schema.get("type") != "object":
        return f"{comment}export type {name} = {_type(schema)};\n"
    required = set(schema.get("required", ()))
    # A field with a default may be left out by a client; the server always writes it, except where it says null or
    # nothing at all, which the schema cannot tell apart.
    lines = [
        f"  {field}{'' if field in required else '?'}: {_type(kind)};"
        for field, kind in schema.get("properties", {}).items()
    ]
    return "\n".join([f"{comment}export interface {name} {{", *lines, "}\n"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        inner = _type(schema.get("items", {}))
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    if kind == "object":
        return f"Record<string, {_type(schema.get('additionalProperties') or {})}>"
    return {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}.get(
        str(kind), "unknown"
    )


def wire() -> str:
    """The module that the UI uses."""
    return module({"ClientEvent": ClientEvent, "ServerEvent": ServerEvent})


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(wire(), encoding="utf-8")
