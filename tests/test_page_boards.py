"""The boards in a real browser: what the command line says, as it changes, in every width; and the own parsers."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, insert

from db import batches, lookup, queue, standing
from db.budgets import PERIOD
from db.engine import Store, connect
from db.migrations import migrate
from router.figures import money
from router.web.page import PAGES
from tests.browser import Window, window
from tests.commands import Done, Shell, finish, submitted
from tests.gateways import Served, serving, settings_for
from tests.lanes import add, job

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    """A database with something of everything in it."""
    opened = connect(f"sqlite:///{folder / 'shunter.db'}")
    migrate(opened)
    for n in range(3):
        finish(opened, client_key=f"row-{n}", tags={"project": "search"})
    finish(opened, failed=True, client_key="bad")
    submitted(opened, 4)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(chromium: "Browser", store: Store, folder: Path) -> Iterator[Served]:
    with serving(settings_for("http://127.0.0.1:9", folder)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def desk(chromium: "Browser", served: Served) -> Iterator[Window]:
    with window(chromium, served, viewport={"width": 1200, "height": 800}) as opened:
        yield opened


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> Callable[..., Done]:
    """Commands on the same database, in a thread of their own: the browser's loop is in this one."""
    made = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{folder / 'shunter.db'}")

    def run(*words: str) -> Done:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(made, *words).result()

    return run


def cells(desk: Window) -> list[list[str]]:
    """The words of the first table."""
    desk.page.locator("table tbody tr").first.wait_for()
    found: list[list[str]] = (
        desk.page.locator("table")
        .first.locator("tbody tr")
        .evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))")
    )
    return found


def test_the_jobs_are_those_of_the_command_line_and_can_be_chosen(desk: Window, shell: Callable[..., Done]) -> None:
    desk.page.goto("/jobs")
    said = shell("jobs", "list", "--json").json["jobs"]
    shown = cells(desk)
    assert [row[0] for row in shown] == [one["id"] for one in said]
    assert [row[1].split()[0] for row in shown] == [one["state"] for one in said]
    assert [row[-1] for row in shown] == [money(one["cost_usd"]) if one["cost_usd"] != "0" else "$0" for one in said]
    desk.page.get_by_role("link", name="failed 1").click()
    desk.page.wait_for_url("**/jobs?state=failed")
    desk.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert "cut" in cells(desk)[0][1]


def test_a_job_shows_its_answer_its_decision_and_its_attempts(desk: Window, store: Store) -> None:
    (ident,) = lookup.find(store, "row-1")
    desk.page.goto(f"/jobs/{ident}")
    desk.page.get_by_role("heading", name="Attempts").wait_for()
    shown = desk.page.locator("#main").inner_text()
    for words in (ident, "row-1", "project=search", "yes", "why", "$0.000012", "3 + 5"):
        assert words in shown
    desk.page.get_by_text("The request as it was sent").click()
    desk.page.get_by_text('"messages"').wait_for()


def test_a_batch_is_seen_to_move(desk: Window, store: Store) -> None:
    desk.page.goto("/batches")
    desk.page.get_by_text("0 of 4").wait_for()
    (batch,) = batches.recent(store, 9)
    now = datetime.now(UTC)
    batches.polled(store, batch, status="in_progress", done=3, expires_at=None, next_poll_at=now)
    desk.page.get_by_text("3 of 4").wait_for()
    assert desk.page.get_by_role("progressbar").get_attribute("aria-valuenow") == "75"


def test_a_new_job_appears_by_itself(desk: Window, store: Store) -> None:
    desk.page.goto("/jobs?state=queued")
    desk.page.get_by_text("No job is like that.").wait_for()
    (ident,) = add(store, job("Name a bird."))
    desk.page.get_by_role("link", name=ident).wait_for()
    queue.cancel(store, [ident], datetime.now(UTC))
    desk.page.get_by_text("No job is like that.").wait_for()


@pytest.mark.parametrize(("kind", "key"), [("cost", "total_usd"), ("savings", "saved_usd")])
def test_the_reports_are_those_of_the_command_line(
    desk: Window, shell: Callable[..., Done], kind: str, key: str
) -> None:
    desk.page.goto(f"/reports/{kind}?by=lane")
    said = shell("report", kind, "--by", "lane", "--json").json
    shown = cells(desk)
    assert desk.page.locator(".headline strong").inner_text() == money(said[key])
    assert [row[0] for row in shown] == [row["lane"] for row in said["rows"]]
    assert desk.page.locator("figure.chart svg rect").count() > 0


def test_latency_is_drawn_and_listed(desk: Window, shell: Callable[..., Done]) -> None:
    desk.page.goto("/reports/latency")
    said = shell("report", "latency", "--by", "lane", "--json").json["rows"]
    counts = [str(one["count"]) for row in said for name, one in row.items() if name != "lane" and one]
    assert sorted(row[2] for row in cells(desk) if row[0] != "all") == sorted(counts)
    assert desk.page.locator("figure.chart svg circle").count() == 2 * len(counts)


def test_explain_and_the_policy_are_there(desk: Window, shell: Callable[..., Done]) -> None:
    desk.page.goto("/policy")
    desk.page.get_by_label("How would this go?").fill("Name a bird. One word.")
    desk.page.get_by_role("button", name="Explain").click()
    desk.page.locator(".taken-row").wait_for()
    said = shell("explain", "Name a bird. One word.", "--interactive", "--json").json
    assert desk.page.locator(".why").inner_text() == said["reason"]
    rests_on = said["rests_on"]
    how = f"counted with {rests_on['counted_with']}" if rests_on["counted_with"] else "estimated"
    assert f"{rests_on['input_tokens']} tokens, {how}" in desk.page.locator("section.decision").inner_text()
    rules = shell("policy", "show", "--json").json["rules"]
    assert desk.page.locator(".rules h3").all_inner_texts() == [rule["name"] for rule in rules]


def test_budgets_are_there(desk: Window, shell: Callable[..., Done]) -> None:
    assert shell("budget", "set", "daily", "--usd", "5", "--per", "day").code == 0
    desk.page.goto("/budgets")
    assert "$5.00" in desk.page.locator(".card").inner_text()


@pytest.mark.parametrize(
    ("spent_usd", "big", "words"),
    [(4.5, "$0.50 left of $5.00 a day", "More than 80% is spent or set aside."),
     (5, "$0 left of $5.00 a day", "Used up: all of it is spent or set aside."),
     (5.75, "$0.75 over $5.00 a day", "Over its limit by $0.75: nothing more fits.")],
)  # fmt: skip
def test_a_budget_says_how_much_of_it_is_gone(
    desk: Window, shell: Callable[..., Done], store: Store, spent_usd: float, big: str, words: str
) -> None:
    assert shell("budget", "set", "daily", "--usd", "5", "--per", "day").code == 0
    (now,) = standing.standing(store, datetime.now(UTC))
    period = {"budget_id": now.budget.id, "starts_at": now.starts_at, "ends_at": now.ends_at, "reserved_nano": 0}
    with store.write() as connection:
        connection.execute(insert(PERIOD).values(**period, spent_nano=int(spent_usd * 1e9)))
    desk.page.goto("/budgets")
    card = desk.page.locator(".card")
    assert " ".join(card.locator(".big").inner_text().split()) == big
    assert words in card.inner_text()
    assert words.partition(":")[0].lower().removesuffix(".") in shell("budget", "list").err
    with store.write() as connection:
        connection.execute(delete(PERIOD))


def test_no_page_is_wider_than_a_phone_and_each_has_a_name(chromium: "Browser", served: Served, store: Store) -> None:
    (ident, *_) = lookup.find(store, "bad")
    with window(chromium, served, viewport={"width": 360, "height": 740}, color_scheme="dark") as phone:
        for path in PAGES:
            kind = path.replace("{kind}", "cost")
            phone.page.goto(kind.replace("/c/{id}", "/c/none").replace("{id}", ident))
            phone.page.wait_for_function("() => document.querySelector('h1, .note, .welcome, textarea')")
            assert phone.page.evaluate("() => document.documentElement.scrollWidth") <= 360, path
            nameless = "all => all.filter(one => !(one.innerText.trim() || one.ariaLabel || one.labels?.length)).length"
            assert (
                phone.page.locator("button, a[href], input:not([hidden]), select, textarea").evaluate_all(nameless) == 0
            )
        assert phone.page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        phone.page.locator("#theme").click()
        assert phone.page.evaluate("() => document.documentElement.dataset.theme") == "light"


# ---- the page's own parsers ----

EVENTS = (
    '\ufeff: hello\r\nid: 1.5\r\ndata: {"a": "é"}\r\n\r\n'
    + "data:one\rdata: two\r\rdata\n\n:\nevent: end\ndata: 日本\n\n"
    + "data: lost"
)
PARSED = [
    {"type": "message", "data": '{"a": "é"}', "id": "1.5"},
    {"type": "message", "data": "one\ntwo", "id": "1.5"},
    {"type": "message", "data": "", "id": "1.5"},
    {"type": "end", "data": "日本", "id": "1.5"},
]
SPLIT = """async ([bytes, size]) => {
  const { eventsOf } = await import("/static/sse.js");
  const chunks = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(new Uint8Array(bytes.slice(at, at + size)));
  const body = new ReadableStream({ start(to) { chunks.forEach(chunk => to.enqueue(chunk)); to.close(); } });
  const found = [];
  for await (const event of eventsOf(new Response(body))) found.push(event);
  return found;
}"""
SHOWN = """async text => {
  const { Markdown } = await import("/static/markdown.js");
  const [whole, grown] = [document.createElement("div"), document.createElement("div")];
  new Markdown(whole).show(text);
  const growing = new Markdown(grown);
  for (let end = 1; end <= text.length; end++) growing.show(text.slice(0, end));
  return [whole.innerHTML, whole.innerHTML === grown.innerHTML];
}"""


def test_any_split_of_the_bytes_gives_the_same_events(desk: Window) -> None:
    desk.page.goto("/budgets")
    raw = list(EVENTS.encode())
    for size in (1, 2, 3, 5, 7, 16, 1000):
        assert desk.page.evaluate(SPLIT, [raw, size]) == PARSED, size


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("# A *b* `c`", ['<h3 class="md-h1">A <em>b</em> <code>c</code></h3>']),
        ("1. a\n   - b\n2. c", ["<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"]),
        (
            "a **b** __c__ ~~d~~ snake_case_here 2*3*4",
            ["<strong>b</strong> <strong>c</strong> <del>d</del> snake_case_here"],
        ),
        ("> a\n> b\n\nc", ["<blockquote><p>a\nb</p></blockquote><p>c</p>"]),
        ("```py\n<b>\n```\nend", ["<span>py</span>", "<code>&lt;b&gt;</code>", "<p>end</p>"]),
        ("[a](https://a.b/c_(d)) <https://e.f>", ['href="https://a.b/c_(d)"', 'href="https://e.f"']),
        ("[a](javascript:x) ![i](http://a/b.png)", ["[a](javascript:x)", ">image: i</a>"]),
        ("**open `code", ["<p>**open `code</p>"]),
        ("## A ##\n# C#", ['<h4 class="md-h2">A</h4>', '<h3 class="md-h1">C#</h3>']),
        ("[https://a.b *c*](https://d.e)", ['href="https://d.e"', ">https://a.b <em>c</em></a>"]),
        ("see https://a.b/c, (https://d.e).", ['href="https://a.b/c"', 'href="https://d.e"', "</a>).</p>"]),
    ],
)
def test_markdown_is_the_same_whole_or_as_it_grows(desk: Window, text: str, parts: list[str]) -> None:
    html, same = desk.page.evaluate(SHOWN, text)
    assert same
    assert [part for part in parts if part not in html] == [], html


def test_figures_are_written_as_the_command_line_writes_them(desk: Window) -> None:
    amounts: list[Any] = ["0", "0.0000465", "0.000000001", "12.5", "1234567.891", "-0.25", None]
    written = "async all => { const { money } = await import('/static/figures.js'); return all.map(money) }"
    assert desk.page.evaluate(written, json.loads(json.dumps(amounts))) == [money(amount) for amount in amounts]
