"""``/admin/v1`` from a tenant's first day on, and what it refuses."""

import pytest

from tests.server.tenants.conftest import CHAT, Walled, ask


async def test_an_operator_sets_up_a_tenant(walled: Walled) -> None:
    async with walled.client("ops") as client:
        made = await client.post("/admin/v1/tenants", json={"name": "new", "weight": 2, "limits": {"streams": 5}})
        assert made.status_code == 201 and made.json()["limits"]["streams"] == 5
        key = (await client.post("/admin/v1/tenants/new/keys", json={"scopes": ["chat"], "label": "app"})).json()
        assert key["secret"].startswith("sk-new-") and "hash" not in key
        listed = (await client.get("/admin/v1/tenants/new/keys")).json()["data"]
        assert [k["id"] for k in listed] == [key["id"]] and "secret" not in listed[0]
        bearer = {"authorization": f"Bearer {key['secret']}"}
        assert (await client.post(CHAT, json=ask(), headers=bearer)).status_code == 200
        rotated = (await client.post(f"/admin/v1/keys/{key['id']}/rotate", json={"grace_seconds": 0})).json()
        assert (await client.post(CHAT, json=ask(), headers=bearer)).status_code == 401
        bearer = {"authorization": f"Bearer {rotated['secret']}"}
        assert (await client.post(CHAT, json=ask(), headers=bearer)).status_code == 200
        assert (await client.delete(f"/admin/v1/keys/{rotated['id']}")).json()["revoked"] is not None
        assert (await client.post(CHAT, json=ask(), headers=bearer)).status_code == 401
        acts = (await client.get("/admin/v1/audit?tenant=new")).json()["data"]
        assert [act["action"] for act in acts] == ["key.revoke", "key.rotate", "key.add", "tenant.add"]
        assert {act["actor"] for act in acts} == {f"key:{walled.keys['ops'].key.id}"}
        assert (await client.get("/admin/v1/cache")).json()["pages"] == 1024
        assert (await client.get("/admin/v1/usage")).status_code == 200
        assert (await client.delete("/admin/v1/tenants/new")).json()["deleted"] is True
        assert (await client.get("/admin/v1/tenants/new")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tenants", b"{"),
        ("POST", "/tenants", b"[]"),
        ("POST", "/tenants", b'{"name": "X"}'),
        ("POST", "/tenants", b'{"name": "x", "weight": 1e400}'),
        ("POST", "/tenants", b'{"name": "x", "other": 1}'),
        ("POST", "/tenants", b'{"name": "x", "limits": {"streams": -1}}'),
        ("POST", "/tenants", b'{"name": "x", "limits": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ("PATCH", "/tenants/a", b'{"weight": null}'),
        ("PATCH", "/tenants/a", b'{"limits": {"streams": {}}}'),
        ("POST", "/tenants/a/keys", b'{"scopes": ["nope"]}'),
        ("POST", "/tenants/a/keys", b'{"expires": 5}'),
        ("POST", "/tenants/a/keys", b'{"label": "\\u0000"}'),
        ("POST", "/tenants/a/keys", b'{"namespace": "A B"}'),
        ("POST", "/tenants/a/prompts", b'{"id": "p", "text": "\\u0000"}'),
        ("POST", "/tenants/a/prompts", b'{"id": "p", "text": "x", "pin": "very"}'),
        ("GET", "/audit?limit=5000", b""),
        ("GET", "/audit?before=x", b""),
        ("GET", "/audit?tenant=%00", b""),
        ("GET", "/usage?tenant=a%00", b""),
    ],
)
async def test_bad_administration_is_400(walled: Walled, method: str, path: str, body: bytes) -> None:
    async with walled.client("ops") as client:
        answer = await client.request(
            method, "/admin/v1" + path, content=body or None, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, answer.text
        assert len((await client.get("/admin/v1/tenants")).json()["data"]) == 3
