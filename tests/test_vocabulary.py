"""Tokens counted with OpenAI's vocabularies: right, bounded, and only for requests that come alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from threading import enumerate as threads
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Request
from jobs.sandbox.server import Sandbox
from router import Router, bulk
from router.decided import Wish
from router.estimate import measure
from router.intake import Defaults, Rejects, read
from router.settings import Settings
from router.tokens import request_tokens, text_tokens
from router.vocabulary import EXACT, FARTHEST, Counting, Vocabularies, Vocabulary, name_of
from tests.gateways import serving, settings_for
from tests.lanes import CLAUDE, KEY, MODEL, rows

pytest.importorskip("rs_bpe", reason="rs-bpe has no wheels for this Python")

ROOT = Path(__file__).parent.parent
O200K, CL100K = "gpt-6-luna", "gpt-4"  # a model of each

# Counts of OpenAI's cookbook ("How to count tokens with tiktoken"), cl100k_base and o200k_base; those of special words
# and of "hello world" are tiktoken's own (0.14, disallowed_special=()).
PUBLISHED = [
    ("hello world", 2, 2),
    ("tiktoken is great!", 6, 6),
    ("antidisestablishmentarianism", 6, 6),
    ("2 + 2 = 4", 7, 7),
    ("お誕生日おめでとう", 9, 8),
    ("<|endoftext|>", 7, 7),
    ("hello <|im_start|>", 6, 7),
    ("", 0, 0),
]

# What OpenAI's API itself counted for one system message: the tests of Azure-Samples' openai-messages-token-helper.
REPORTED = [
    ("You are a bot.", 12, 12),
    ("You are a helpful, pattern-following assistant that translates corporate jargon into plain English.", 25, 24),
    (
        "Assistant helps the company employees with their healthcare plan questions, and questions about the employee "
        "handbook. Be brief in your answers.",
        31,
        31,
    ),
]


def ask(*said: Any, model: str = MODEL, **more: Any) -> Request:
    return Request(model=model, messages=[{"role": "user", "content": content} for content in said], **more)


def counting(model: str = MODEL) -> Counting:
    found = Vocabularies().counting(model)
    assert found is not None
    return found


class Watched:
    """A vocabulary of the package that notes how many characters it is given."""

    def __init__(self) -> None:
        self.characters = 0
        self.vocabulary = Vocabulary("o200k_base", self.count)
        self.characters = 0

    def count(self, text: str) -> int:
        self.characters += len(text)
        from rs_bpe.bpe import openai

        return int(openai.o200k_base().count(text))


# ---- right ----


@pytest.mark.parametrize(("text", "cl100k", "o200k"), PUBLISHED)
def test_published_counts(text: str, cl100k: int, o200k: int) -> None:
    assert (counting(CL100K)(text), counting(O200K)(text)) == (cl100k, o200k)


@pytest.mark.parametrize(("text", "cl100k", "o200k"), REPORTED)
def test_the_framing_is_what_the_api_counts(text: str, cl100k: int, o200k: int) -> None:
    for model, tokens in ((CL100K, cl100k), (O200K, o200k)):
        turns = [{"role": "system", "content": text}, {"role": "user", "content": "hello world"}]
        request = Request(model=model, messages=turns)
        assert measure(request, count=counting(model)).input_tokens == tokens + 2 + 4


def test_tools_schema_and_images_are_framed_as_before_and_their_words_counted() -> None:
    tool = {"type": "function", "function": {"name": "look", "description": "见", "parameters": {"type": "object"}}}
    plain = request_tokens(ask("hello world"), counting())
    assert plain == 2 + 4 + 3
    words = json.dumps(tool, separators=(",", ":"), ensure_ascii=False)
    assert request_tokens(ask("hello world", tools=[tool]), counting()) == plain + 10 + counting()(words)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999, "detail": "low"}}
    parts = [{"type": "text", "text": "hello world"}, image]
    assert request_tokens(ask(parts), counting()) == plain + 85
    named = Request.from_body({"model": MODEL, "messages": [{"role": "user", "content": "hello world", "name": "ada"}]})
    assert request_tokens(named, counting()) == plain + counting()('{"name":"ada"}')


@pytest.mark.parametrize(
    ("vocabulary", "models"),
    [
        ("o200k_base", "gpt-4o gpt-4o-mini chatgpt-4o-latest gpt-4.1 gpt-4.1-nano-2025-04-14 gpt-4.5-preview"),
        ("o200k_base", "gpt-5 gpt-5-mini gpt-5.1 gpt-5.2-pro gpt-6 gpt-6-luna gpt-6-luna-2026-09-01"),
        ("o200k_base", "o1 o1-mini o3 o3-deep-research o4-mini-2025-04-16 openai/gpt-4o ft:gpt-4o-mini:org::id"),
        ("cl100k_base", "gpt-4 gpt-4-0613 gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-4-32k ft:gpt-4:org::id"),
        ("cl100k_base", "gpt-3.5-turbo gpt-3.5-turbo-0125 gpt-35-turbo azure/gpt-4-turbo text-embedding-3-small"),
        (None, "claude-haiku-5-5 claude-3-5-sonnet anthropic/claude-haiku-5-5 llama3.1 mistral-large deepseek-chat"),
        (None, "gpt-oss-120b gpt2 gpt-7 gpt-4oh gpt-40 gpt-4.2 o2 o10 o365 my-gpt-4o someone/gpt-4-like text-davinci"),
        (None, "m GPT"),
    ],
)  # fmt: skip
def test_which_models_have_which(vocabulary: str | None, models: str) -> None:
    assert {name: name_of(name) for name in models.split()} == dict.fromkeys(models.split(), vocabulary)
    assert all((Vocabularies().counting(name) is None) is (vocabulary is None) for name in models.split())
    assert name_of("") is None


@given(st.text(st.characters(), max_size=300) | st.text("-=/*#\t a\n\0\ud83d🙂", max_size=2000))
def test_any_text_has_a_count_and_always_the_same(text: str) -> None:
    tokens = counting()(text)
    assert 0 <= tokens <= len(text.encode("utf-8", "replace"))
    assert counting()(text) == tokens
    if text.strip():
        assert measure(ask(text), count=counting()).input_tokens == tokens + 4 + 3


@pytest.mark.parametrize("sign", [*"-=/*#\t", "a", " ", "\n", "\0", "7", "🙂"])
def test_a_row_of_one_sign_is_nearly_what_it_is_without_pieces(sign: str) -> None:
    from rs_bpe.bpe import openai

    row = sign * 5000
    assert counting()(row) == pytest.approx(openai.o200k_base().count(row), rel=0.05)


# ---- bounded ----


def test_no_more_characters_are_counted_than_may_be_however_many_there_are() -> None:
    watched, prose = Watched(), "The night train left the station an hour late. " * 40
    tool = {"type": "function", "function": {"name": "look", "description": prose}}
    request = ask(*[prose] * 30, tools=[tool] * 5)
    count = Counting(watched.vocabulary)
    tokens = request_tokens(request, count)
    assert watched.characters == EXACT
    assert not count.counted.whole
    whole = Counting(Watched().vocabulary)
    assert request_tokens(ask(prose), whole) < EXACT
    assert whole.counted == ("o200k_base", True)
    exact = request_tokens(request, lambda text: watched.vocabulary.tokens(text))
    assert tokens == pytest.approx(exact, rel=0.02)


def test_rows_of_signs_do_not_reach_it_whole() -> None:
    watched = Watched()
    Counting(watched.vocabulary)("-" * EXACT)
    assert watched.characters < 300


def test_the_rest_is_estimated_as_far_off_as_the_beginning_was() -> None:
    code = "for row in rows:\n        batch.append(row)  # one more\n" * 400
    exact = Watched().vocabulary.tokens(code)
    assert abs(text_tokens(code) / exact - 1) > 0.05  # or this would tell nothing
    assert counting()(code) == pytest.approx(exact, rel=0.02)


def test_a_strange_beginning_says_little_of_the_rest() -> None:
    prose = "The night train left the station an hour late. " * 400
    rest = counting()(" " * EXACT + prose) - counting()(" " * EXACT)
    assert text_tokens(prose) / FARTHEST <= rest + 1 <= text_tokens(prose) * FARTHEST


# ---- only where it is at hand, and only where a request comes alone ----


@pytest.fixture
def environment(sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    provider = {"OPENAI_BASE_URL": f"{sandbox.url}/v1", "OPENAI_API_KEY": KEY}
    return os.environ | provider | {"SHUNTER_DATABASE_URL": f"sqlite:///{tmp_path / 'shunter.db'}"}


def command(environment: dict[str, str], *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a fresh interpreter; the last line on stderr says whether rs-bpe was loaded."""
    code = f"""
import sys
{before}
from router.cli.app import main
sys.argv[1:] = {list(words)!r}
try:
    main()
finally:
    print("loaded" if sys.modules.get("rs_bpe") else "not loaded", file=sys.stderr)
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "model", "vocabulary"),
    [
        ("", O200K, "o200k_base"),
        ("", CL100K, "cl100k_base"),
        ("", "llama3.1", None),
        ("sys.modules['rs_bpe'] = None", O200K, None),
    ],
)
def test_explain_says_how_it_was_counted(
    environment: dict[str, str], before: str, model: str, vocabulary: str | None
) -> None:
    words = ("explain", "-m", model, "Say hello to the world.")
    found = command(environment, *words, "--json", before=before)
    assert (found.returncode, found.stderr) == (0, "loaded\n" if vocabulary else "not loaded\n")
    rests_on = json.loads(found.stdout)["rests_on"]
    assert (rests_on["counted_with"], rests_on["counted_whole"]) == (vocabulary, vocabulary is not None)
    text = command(environment, *words, before=before).stdout
    said = f"13 tokens, counted with {vocabulary}" if vocabulary else "tokens, estimated"
    assert said in text
    if vocabulary:
        assert rests_on["input_tokens"] == 13  # "Say hello to the world." is six


def test_a_long_prompt_is_counted_at_its_beginning(environment: dict[str, str]) -> None:
    prompt = "The night train left the station an hour late. " * 300
    assert "its beginning counted with o200k_base" in command(environment, "explain", prompt).stdout
    found = json.loads(command(environment, "explain", prompt, "--json").stdout)["rests_on"]
    assert (found["counted_with"], found["counted_whole"]) == ("o200k_base", False)


@pytest.mark.parametrize("words", [["submit", "--file"], ["explain", "--file"], ["submit", "--dry-run", "--file"]])
def test_a_file_is_estimated_and_loads_nothing(environment: dict[str, str], tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text('{"prompt": "Name a colour."}\n')
    found = command(environment, *words, str(file))
    assert (found.returncode, found.stderr.splitlines()[-1]) == (0, "not loaded")


def test_other_commands_load_nothing(environment: dict[str, str]) -> None:
    for words in (["--help"], ["policy", "show"], ["report", "cost"], ["submit", "-m", CLAUDE, "--help"]):
        assert command(environment, *words).stderr.splitlines()[-1] == "not loaded"


@pytest.fixture
def settings(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return settings_for(sandbox.url, tmp_path)


def test_rows_are_estimated_beside_requests_that_are_counted(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "Say hello to the world."}\n')
    with serving(settings) as served:
        router: Router = served.router
        with file.open("rb") as source:
            reader = read(source, None, Defaults(model=MODEL), name=file.name)
            bulk.submit(router, reader, Wish(), Rejects(None), file.name, lambda so_far: None)
        for model in (MODEL, CLAUDE):
            with served.client() as client:
                said = {"model": model, "messages": [{"role": "user", "content": "Say hello to the world."}]}
                assert client.post("/v1/chat/completions", json=said).status_code == 200
        query = "SELECT source, decision.id, input_tokens FROM job JOIN decision ON decision.id = decision_id "
        query += "JOIN submission ON submission.id = submission_id ORDER BY job.id"
        found = [(ident.partition("+")[2], tokens) for _, ident, tokens in rows(router.store, query)]
        estimate = measure(ask("Say hello to the world.")).input_tokens
    assert found == [("", estimate), ("o200k_base", 13), ("", estimate)]


def test_a_gateway_has_what_it_serves_before_the_first_request(settings: Settings) -> None:
    with serving(settings) as served:
        vocabularies = served.router.vocabularies
        assert vocabularies.counting(MODEL) is not None
        first = vocabularies.counting(CL100K)  # nobody asked for such a model here yet
        loading = [thread for thread in threads() if thread.name == "load cl100k_base"]
        for thread in loading:
            thread.join(30)
        assert first is None
        assert vocabularies.counting(CL100K) is not None


def test_a_gateway_without_models_of_openai_loads_nothing(environment: dict[str, str]) -> None:
    code = f"""
import sys
from router.vocabulary import Vocabularies
made = Vocabularies()
made.prepare(["{CLAUDE}", "llama3.1"])
assert made.counting("{CLAUDE}") is None
print("rs_bpe" in sys.modules)
made.prepare(["{MODEL}"])
print("rs_bpe" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    assert done.stdout.split() == ["False", "True"]


def test_it_is_the_same_in_every_thread() -> None:
    vocabularies, found = Vocabularies(), []
    request = ask("The night train left the station an hour late. " * 50)

    def work() -> None:
        for _ in range(50):
            found.append(measure(request, count=vocabularies.counting(MODEL)))

    working = [Thread(target=work) for _ in range(8)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    assert len(found) == 400
    assert len(set(found)) == 1


def test_the_same_request_gets_the_same_decision(settings: Settings) -> None:
    request = ask("Say hello to the world.", interactive=True)
    first, second = Router(settings), Router(settings)
    now = first.clock.now()
    facts = [router.routed(request, Wish(), now)[1] for router in (first, second, first)]
    assert len(set(facts)) == 1
    assert first.decide(facts[0], now) == second.decide(facts[1], now)
