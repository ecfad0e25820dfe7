"""What is generated from the structs: the UI's types as they are committed, and a document that is whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from backend.server import typescript
from backend.server.openapi import document
from tests.server.conftest import House

WIRE = Path(__file__).resolve().parents[2] / "web" / "src" / "model" / "wire.ts"


def test_the_committed_types_are_the_generated_ones() -> None:
    assert WIRE.read_text(encoding="utf-8") == typescript.wire(), "run: python -m backend.server.typescript " + str(
        WIRE.relative_to(WIRE.parents[3])
    )


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    made = document()
    names = set(references(made))
    assert "#/components/schemas/ResponseCreate" in names and len(names) > 30
    for name in names:
        assert name.removeprefix("#/components/schemas/") in made["components"]["schemas"]


async def test_every_documented_route_is_there_and_says_no_in_json(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.http) as client:
        assert (await client.get("/openapi.json")).json() == json.loads(json.dumps(document()))
        for path, methods in document()["paths"].items():
            for method in methods:
                answer = await client.request(method, path.replace("{", "x").replace("}", "x"), content=b"{}")
                assert answer.status_code < 500, (method, path)
                if answer.status_code >= 400:
                    assert answer.json()["error"]["code"] not in ("not_found", "method_not_allowed"), (method, path)
