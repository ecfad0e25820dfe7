"""The live page: what the server shows of its cache and its batch. The server is scripted."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.server.events import CLIENT_EVENTS
from tests.web.conftest import Visit
from tests.web.scripted import ScriptedServer
from tests.web.visitor import ask, is_streaming


def node(identity: int, parent: int, tenant: str | None, tokens: int, **more: Any) -> dict[str, Any]:
    """A node of the tree as the server writes it."""
    rest = {"pages": tokens // 16, "depth_tokens": 0, "locks": 0, "pinned": "", "hits": 0, "idle": 0, "preview": None}
    return {"id": identity, "parent": parent, "tenant": tenant, "tokens": tokens, **rest, **more}


def show(own: ScriptedServer, *nodes: dict[str, Any]) -> None:
    """Sends a tree."""
    own.say("x.tree", nodes=list(nodes), hidden_pages=3, other_pages=0)


def lane(name: str, tenant: str, state: str, done: int, total: int) -> dict[str, Any]:
    """A request in the engine."""
    return {"id": name, "tenant": tenant, "state": state, "done": done, "total": total, "limit": 400, "chunk": 0}


def figures(own: ScriptedServer, found: int, computed: int, step_ms: float) -> None:
    """Sends figures."""
    classes = {"system": 0, "history": 0, "shared": 0, "new": 0}
    own.say(
        "x.stats",
        of="server",
        running=2,
        prefilling=1,
        waiting=4,
        pages={"held": 10, "cached": 20, "free": 70, "pinned": 5, "total": 100},
        hits={**classes, "system": found},
        misses={**classes, "new": computed},
        evictions=0,
        preemptions=0,
        step_ms=step_ms,
        steps_per_s=40.0,
        tokens_per_s=80.0,
    )


def test_tree_batch_and_figures(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_text("Waiting for the server.")).to_be_visible()
    page.wait_for_function("location.hash === '#/live'")
    assert own.last("x.subscribe")["topics"] == ["stats", "tree", "batch"]

    root = node(1, 0, None, 400, pinned="soft", hits=5, preview="You are the assistant of Alda.")
    show(own, root, node(2, 1, "alda", 100, idle=0), node(3, 1, "brim", 50, idle=9))
    tree = page.get_by_role("region", name="The tree")
    bars = tree.locator(".node")
    expect(bars).to_have_count(3)
    expect(tree.locator(".node-label")).to_have_text(["You are the assistant of Alda."])
    widths = {
        name: float(bars.and_(page.locator(f".tenant-{name}")).get_attribute("width") or 0) for name in (-1, 0, 1)
    }
    assert widths[-1] > 3.5 * widths[0] > 6.5 * widths[1]
    old, fresh = (
        float(tree.locator(f".node.tenant-{name}").evaluate("bar => getComputedStyle(bar).opacity")) for name in (1, 0)
    )
    assert old < 0.5 and fresh == 1
    expect(page.locator(".tree-legend li")).to_have_text(["public", "alda", "brim"])
    expect(page.locator(".pulse")).to_have_count(0)
    show(own, {**root, "hits": 6}, node(2, 1, "alda", 100), node(3, 1, "brim", 50, idle=9))
    expect(page.locator(".pulse")).to_have_count(1)
    page.get_by_text("As a list").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("You are the assistant of Alda.")

    own.say(
        "x.batch",
        lanes=[
            lane("a", "alda", "running", 300, 301),
            lane("b", "brim", "prefilling", 64, 200),
            lane("c", "brim", "waiting", 0, 9),
        ],
    )
    batch = page.get_by_role("region", name="Batch")
    expect(batch.locator(".count")).to_have_text(["1", "1", "1", "0"])
    done = batch.locator('[data-state="running"] .lane-done')
    ratio = done.evaluate("bar => bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width")
    expect(done).to_be_visible()
    assert 0.6 < ratio < 0.8

    for step in range(5):
        figures(own, 900 * step, 100 * step, 10.0 + step)
    tiles = page.get_by_role("region", name="Figures")
    expect(tiles.locator(".tile-value")).to_have_text(["90 %", "14 ms", "80/s", "30"])
    expect(tiles.get_by_role("img", name="Pages: 10 in use, 20 kept, 70 free")).to_be_visible()
    assert "L" in (tiles.locator(".chart-line").nth(1).get_attribute("d") or "")

    page.get_by_role("link", name="Chat").click()
    ask(page, "Hi")
    assert [request["type"] for request in own.requests[-2:]] == ["x.unsubscribe", "response.create"]


def test_a_server_that_shows_nothing_says_why(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_text("Waiting for the server.")).to_be_visible()
    page.wait_for_timeout(100)
    error = {"type": "invalid_request_error", "code": "insufficient_scope", "message": "no", "param": None}
    own.say("error", status=403, error=error)
    expect(page.get_by_role("group", name="Problem")).to_contain_text("may not look into the cache")


def test_reduced_motion_does_not_flash(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    page.emulate_media(reduced_motion="reduce")
    page.goto(page.url.split("#")[0] + "#/live")
    expect(page.get_by_text("Waiting for the server.")).to_be_visible()
    show(own, node(1, 0, None, 400, hits=1))
    expect(page.locator(".node")).to_have_count(1)
    show(own, node(1, 0, None, 400, hits=2))
    pulse = page.locator(".pulse")
    expect(pulse).to_have_count(1)
    assert pulse.evaluate("bar => getComputedStyle(bar).animationName") == "none"


@pytest.mark.skipif("x.subscribe" not in CLIENT_EVENTS, reason="this server shows nothing")
def test_the_real_server_shows_what_was_asked(visit: Visit) -> None:
    live = visit.tab()
    live.goto(visit.url + "/#/live")
    expect(live.get_by_role("region", name="Figures").locator(".tile-value").first).to_be_visible()
    page = visit.open()
    turn = ask(page, "Please tell me everything, the long way.")
    is_streaming(turn)
    # The batch shows the request while it runs.
    expect(live.locator(".lane")).not_to_have_count(0)
    page.keyboard.press("Escape")
    expect(live.locator(".lane")).to_have_count(0)
