"""Whose pages may call, and by which names: cross-site WebSockets, DNS rebinding, and what an operator allows."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from backend.errors import RequestError
from backend.server.app import create_app
from backend.server.callers import Callers
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house, serve

PAGE = "https://app.example.com"
LISTED = Callers(frozenset({"chat.example.com"}), frozenset({PAGE}))


def scope(method: str = "POST", **headers: str) -> dict[str, object]:
    kind = "websocket" if method == "WEBSOCKET" else "http"
    return {"type": kind, "method": method, "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]}


def code(callers: Callers, has_keys: bool, asked: dict[str, object]) -> str:
    try:
        callers.check(asked, has_keys=has_keys)
    except RequestError as error:
        assert error.status == 403
        return error.code
    return ""


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "10.1.2.3", ""])
def test_addresses_and_localhost_are_always_ours(host: str) -> None:
    asked = scope(host=host) if host else scope()
    for callers in (Callers(), LISTED):
        for has_keys in (False, True):
            assert code(callers, has_keys, asked) == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "WEBSOCKET"])
def test_other_names_only_where_callers_need_a_key_or_they_are_listed(host: str, method: str) -> None:
    asked = scope(method, host=host)
    assert code(Callers(), False, asked) == "host_not_allowed"
    assert code(LISTED, False, asked) == code(LISTED, True, asked) == "host_not_allowed"
    assert code(Callers(), True, asked) == ""
    assert code(Callers(frozenset({"*"})), False, asked) == ""


def test_one_good_host_of_two_is_not_enough() -> None:
    headers = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    assert code(Callers(), False, {"type": "http", "method": "GET", "headers": headers}) == "host_not_allowed"


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("chat.example.com", "https://chat.example.com", True),
        ("chat.example.com", "http://chat.example.com:80", True),
        ("chat.example.com:8443", "https://chat.example.com:8443", True),
        ("chat.example.com", PAGE, True),
        ("chat.example.com", PAGE.upper(), True),
        ("chat.example.com", PAGE + ":444", False),
        ("chat.example.com", "http://app.example.com", False),
        ("chat.example.com", "https://app.example.com.evil.example", False),
        ("chat.example.com", "https://chat.example.com:8443", False),
        ("chat.example.com", "null", False),
        ("chat.example.com", "", False),
        ("chat.example.com", "file://", False),
    ],
)
def test_origins(host: str, origin: str, allowed: bool) -> None:
    for method in ("POST", "DELETE", "PATCH", "WEBSOCKET"):
        assert code(LISTED, True, scope(method, host=host, origin=origin)) == ("" if allowed else "origin_not_allowed")
    assert code(LISTED, True, scope("GET", host=host, origin=origin)) == ""  # a browser shows the page nothing of it


@contextlib.asynccontextmanager
async def opened(house: House, ui: Path, callers: Callers) -> AsyncIterator[httpx.AsyncClient]:
    """``house`` on a free port, for ``callers``, and a client of it."""
    async with serve(house, create_app(house.service, ui, callers=callers)), httpx.AsyncClient() as client:
        client.base_url = house.http  # type: ignore[assignment]
        yield client


async def test_a_page_under_a_rebound_name_gets_nothing(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    house = make_house(folder, tokenizer)
    rebound = {"host": f"evil.example:{house.port}", "origin": f"http://evil.example:{house.port}"}
    async with opened(house, tmp_path, Callers()) as client:
        for path in ("/", "/v1/models", "/v1/prompts", "/metrics", "/health"):
            refused = await client.get(path, headers=rebound)
            assert refused.status_code == 403 and refused.json()["error"]["code"] == "host_not_allowed", path
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
        assert (await client.post("/v1/chat/completions", json=body, headers=rebound)).status_code == 403
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        with pytest.raises(InvalidStatus) as refusal:
            await connect(house.socket, additional_headers={"Host": "evil.example"})
        assert refusal.value.response.status_code == 403
    assert len(house.engine.submitted) == 1


async def test_a_listed_page_calls_from_the_browser(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    house = make_house(folder, tokenizer)
    body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
    async with opened(house, tmp_path, LISTED) as client:
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
        preflight = await client.options("/v1/chat/completions", headers={"origin": PAGE, **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        answer = await client.post("/v1/chat/completions", json=body, headers={"origin": PAGE})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
        async with connect(house.socket, origin=PAGE):  # type: ignore[arg-type]
            pass
        other = {"origin": "https://evil.example"}
        refused = await client.post("/v1/chat/completions", json=body, headers=other)
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        assert (await client.options("/v1/chat/completions", headers=other | asks)).status_code == 400
        with pytest.raises(InvalidStatus):
            await connect(house.socket, origin="https://evil.example")  # type: ignore[arg-type]


async def test_without_a_list_no_page_is_let_in_from_elsewhere(
    folder: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    house = make_house(folder, tokenizer)
    async with opened(house, tmp_path, Callers()) as client:
        answer = await client.get("/v1/models", headers={"origin": PAGE})
        assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
        for method, path in (("POST", "/v1/tickets"), ("DELETE", "/v1/responses/x"), ("OPTIONS", "/v1/tickets")):
            refused = await client.request(method, path, headers={"origin": PAGE})
            assert refused.status_code == 403, path
