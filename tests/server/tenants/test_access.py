"""Keys and scopes: what opens which route, and what a request runs as."""

import json
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from backend.server import access
from backend.server.app import create_app
from backend.server.sampling import Asked
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.tenants.database import database_url, open_database
from backend.tenants.identity import SCOPES
from backend.text.tokenizer import TextTokenizer
from tests.server.fake_engine import FakeEngine
from tests.server.tenants.conftest import CHAT, Walled, ask, events_until, until


def flat(routes: list[BaseRoute], prefix: str = "") -> list[tuple[str, str]]:
    """Every method and path of the app but the UI's mount; parameters filled in."""
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, Mount):
            found += flat(list(route.routes), prefix + route.path)
        elif isinstance(route, WebSocketRoute):
            found.append(("WEBSOCKET", prefix + route.path))
        elif isinstance(route, Route):
            found += [(method, prefix + route.path) for method in route.methods or ()]
    named = ("{response_id}", "{id:path}", "{id}", "{tenant}", "{key}", "{version:int}")
    for name in named:
        found = [(method, path.replace(name, "1")) for method, path in found]
    return found


async def test_every_route_wants_a_key(walled: Walled) -> None:
    """Whatever route there is: without a key it is 401, but for three; nothing of it runs."""
    routes = flat(create_app(walled.service).routes)
    assert {("POST", CHAT), ("GET", "/metrics"), ("DELETE", "/admin/v1/keys/1"), ("WEBSOCKET", "/v1/responses")} <= set(
        routes
    )
    async with walled.client() as client:
        for method, path in routes:
            if method == "WEBSOCKET":
                with pytest.raises(InvalidStatus) as caught:
                    await connect(walled.http.replace("http", "ws") + path, proxy=None)
                status = caught.value.response.status_code
            else:
                status = (await client.request(method, path)).status_code
            expected = {200} if path in access.OPEN_PATHS else {401}
            assert status in expected, (method, path)
    assert walled.engine.submitted == []


async def test_every_route_wants_its_scope(walled: Walled) -> None:
    """A key with all scopes but the one gets 403; a path that no rule lists is refused to everybody with a key."""
    for scope in SCOPES:
        walled.add_key(scope, "a", *(other for other in SCOPES if other != scope))
    walled.tenancy.directory.refresh()
    for method, path in flat(create_app(walled.service).routes):
        kind = "websocket" if method == "WEBSOCKET" else "http"
        wanted = access.required_scope({"type": kind, "method": method, "path": path})
        if wanted is None or kind == "websocket":
            continue
        async with walled.client(wanted) as client:
            answer = await client.request(method, path)
        assert answer.status_code == 403, (method, path)
        assert method == "HEAD" or answer.json()["error"]["code"] == "insufficient_scope", (method, path)
    with pytest.raises(InvalidStatus) as caught:
        await walled.connected("chat")
    assert caught.value.response.status_code == 403
    async with walled.client("ops") as client:
        for path in (
            "/v1",
            "/v1/",
            "/V1/models",
            "/v1/models/../usage/x",
            "//v1/models",
            "/debug",
            "/admin/v1",
            "/v1/new",
        ):
            assert (await client.get(path)).status_code == 403, path
    assert walled.engine.submitted == []


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"},
        {"authorization": "Bearer any"},
        {"authorization": "Basic c2s="},
        {"authorization": "Bearer sk-a-" + "0" * 64},
        {"authorization": "Bearer sk-a-" + "\xff" * 64},
        {"authorization": "Bearer " + "x" * 10_000},
        {"host": "evil/health?"},
        {"host": "127.0.0.1/health#"},
        {"x-forwarded-prefix": "/health"},
    ],
)
async def test_wrong_credentials_open_nothing(walled: Walled, headers: dict[str, str]) -> None:
    """Also a Host header that would turn the URL, not the path, into an open one."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(walled.http + CHAT, json=ask(), headers=raw)
    assert answer.status_code in (400, 401) and walled.engine.submitted == []
    assert "www-authenticate" in answer.headers or answer.status_code == 400


async def test_a_key_in_the_url_is_no_key(walled: Walled) -> None:
    secret = walled.keys["a"].secret
    async with walled.client() as client:
        for query in (f"?key={secret}", f"?api_key={secret}", f"?authorization=Bearer%20{secret}"):
            assert (await client.get("/v1/models" + query)).status_code == 401
    with pytest.raises(InvalidStatus):
        await connect(f"{walled.socket}?key={secret}", proxy=None)


async def test_two_authorizations_are_none(walled: Walled) -> None:
    value = f"Bearer {walled.keys['a'].secret}"
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            walled.http + "/v1/models", headers=[("authorization", value), ("authorization", value)]
        )
    assert answer.status_code == 401


async def test_the_ui_is_open_and_nothing_beside_it(walled: Walled, folder: Path, tmp_path: Path) -> None:
    ui = tmp_path / "built"
    (ui / "assets").mkdir(parents=True)
    (ui / "index.html").write_text("<html>")
    (ui / "assets" / "a.js").write_text("1")
    transport = httpx.ASGITransport(create_app(walled.service, ui))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        statuses = {
            path: (await client.get(path)).status_code
            for path in ("/", "/index.html", "/assets/a.js", "/assets/b.js", "/other", "/assets/../v1/models")
        }
        assert (await client.post("/")).status_code == 401
    assert statuses == {
        "/": 200,
        "/index.html": 200,
        "/assets/a.js": 200,
        "/assets/b.js": 401,
        "/other": 401,
        "/assets/../v1/models": 401,
    }


async def test_keys_are_in_no_log_metric_or_error(walled: Walled, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bad = "sk-a-" + "5" * 64
    async with walled.client("ops") as client:
        texts = [(await client.post(CHAT, json=ask())).text]
        texts += [(await client.get("/v1/models", headers={"authorization": f"Bearer {bad}"})).text]
        texts += [
            (await client.get(path)).text for path in ("/metrics", "/admin/v1/tenants/ops/keys", "/admin/v1/audit")
        ]
    kept = "\n".join([*texts, caplog.text])
    secret = walled.keys["ops"].secret
    assert "key_" in kept and bad not in kept and secret not in kept and secret[-20:] not in kept
    assert secret[-4:] in kept  # only this much is shown
    assert walled.keys["ops"].key.hash.hex() not in kept


async def test_requests_run_as_their_tenant(walled: Walled) -> None:
    walled.add_key("named", "b", "chat", namespace="n1")
    walled.tenancy.directory.refresh()
    for key in ("a", "b", "named"):
        assert (await walled.ask(key)).status_code == 200
    async with walled.connected("a") as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "Hi"}))
        await events_until(socket, "response.completed")
    submitted = [(submit.tenant, submit.namespace) for submit in walled.engine.submitted]
    assert submitted == [("a", ""), ("b", ""), ("b", "n1"), ("a", "")]


@pytest.mark.parametrize("key", ["a", "ops"])
async def test_steps_of_all_are_told_to_who_sees_all(walled: Walled, key: str) -> None:
    walled.never_ends()
    walled.engine.step_ms = 7.5
    async with walled.connected("b", max_queue=None) as other, walled.connected(key) as socket:
        await other.send(json.dumps({"type": "response.create", "input": "Hi"}))
        await socket.send(json.dumps({"type": "x.subscribe", "topics": ["stats"], "max_hz": 10}))
        stats = [json.loads(await socket.recv()) for _ in range(3)][-1]
    assert stats["of"] == ("server" if key == "ops" else "tenant")
    assert (stats["step_ms"] is not None, stats["steps_per_s"] is not None) == (key == "ops", key == "ops")


async def test_who_was_not_admitted_does_not_begin(walled: Walled) -> None:
    """A handler that forgets who asks gets nothing for it: with tenants there is no local one."""
    model, engine = walled.service.model, walled.service.engine
    prompt = model.encoder.begin([{"role": "user", "content": "Hi"}])
    options = model.check_options(Asked())
    with pytest.raises(Exception, match="revoked"):
        model.submit(engine.next_request_id(), prompt, options)
    good = model.submit(
        engine.next_request_id(),
        prompt,
        options,
        identity=walled.tenancy.directory.authenticate(walled.keys["a"].secret),
    )
    with pytest.raises(Exception, match="not admitted"):
        walled.service.generate(msgspec.structs.replace(good, request=good.request + 1), 0.0)
    assert walled.engine.submitted == []


async def test_weights_and_quotas_reach_the_engine(walled: Walled) -> None:
    async with walled.client("ops") as client:
        answer = await client.patch("/admin/v1/tenants/a", json={"weight": 3, "page_limit": 50, "page_watermark": 40})
        assert answer.status_code == 200 and answer.json()["weight"] == 3
    await until(lambda: walled.engine.tenants["a"].weight == 3)
    assert (walled.engine.tenants["a"].page_limit, walled.engine.tenants["a"].page_watermark) == (50, 40)
    walled.tenancy.tenants.remove("b", actor="test")
    walled.tenancy.tenants.change("a", {"weight": 4}, actor="test")  # as the command does, beside the server
    began = time.monotonic()
    await until(lambda: walled.engine.tenants["a"].weight == 4)
    assert time.monotonic() - began < 1
    assert walled.engine.tenants["b"].weight == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 201), ("localhost", 201), ("[::1]:8000", 201), ("evil.example:8000", 403), ("10.0.0.1", 403)],
)
async def test_without_keys_only_who_names_this_machine_administers(
    folder: Path, tokenizer: TextTokenizer, tmp_path: Path, host: str, status: int
) -> None:
    """A foreign page's own name, made to point at this machine, is no way in."""
    tenancy = Tenancy(open_database(database_url("", tmp_path)))
    engine = FakeEngine(lambda prompt: (), vocab_size=tokenizer.vocab_size)
    app = create_app(ChatService(engine, folder, "small", tenancy=tenancy), tmp_path)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://x", headers={"host": host}
    ) as client:
        made = await client.post("/v1/prompts", json={"id": "p", "text": "x"})
        assert made.status_code == status
        assert (await client.get("/admin/v1/tenants")).status_code == (200 if status == 201 else 403)
        assert (await client.post("/admin/v1/tenants", json={"name": "x"})).status_code == status
    assert len(tenancy.directory.content.tenants) == (status == 201)
    await tenancy.close()


async def test_configuring_a_tenant_ends_the_open_house(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tenancy = Tenancy(open_database(database_url("", tmp_path)))
    engine = FakeEngine(lambda prompt: (), vocab_size=tokenizer.vocab_size)
    app = create_app(ChatService(engine, folder, "small", tenancy=tenancy), tmp_path)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        assert (await client.get("/v1/models")).status_code == 200
        tenancy.tenants.add("a", actor="test")
        await tenancy.look()
        assert (await client.get("/v1/models")).status_code == 401
    await tenancy.close()
