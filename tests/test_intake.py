"""What a row becomes: its request, its key, or the reason why it cannot be sent."""

import io
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import UsageError
from router.intake import Defaults, Kind, Reader, Reject, Row, canonical, key, read
from tests.rows import USER, M, batch, reason, row, rows, values, words

DATA = Path(__file__).parent.parent.parent / "shared/data"


@given(st.dictionaries(words, values, max_size=6))
def test_the_body_is_the_canonical_json_of_the_request(fields: dict[str, Any]) -> None:
    for line in ({**fields, "prompt": "Hi"}, batch(fields)):
        for item in rows(orjson.dumps(line), defaults=Defaults("m", "Be brief", max_tokens=9)):
            if isinstance(item, Row):
                assert item.body == canonical(item.request.body())
                assert item.key == key(item.body, item.request.client_key, item.line)


def test_the_same_file_twice_has_the_same_keys() -> None:
    data = b"\n".join(orjson.dumps(batch({"seed": n % 2}, custom_id=f"c{n % 3}")) for n in range(50))
    keys = [item.key for item in rows(data) if isinstance(item, Row)]
    assert keys == [item.key for item in rows(data) if isinstance(item, Row)]
    assert len(set(keys)) == 50


def test_the_order_of_keys_line_ends_and_a_bom_do_not_matter() -> None:
    plain = b'{"prompt":"Hi","seed":1,"metadata":{"a":"1","b":"2"}}\n'
    other = b'\xef\xbb\xbf{"metadata": {"b": "2", "a": "1"}, "seed": 1, "prompt": "Hi"}\r\n'
    (first,), (second,) = rows(plain), rows(other)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.key == second.key


def test_another_body_custom_id_or_line_is_another_key() -> None:
    keys = [
        key(*facts) for facts in [("{}", "a", 1), ('{"a":1}', "a", 1), ("{}", "b", 1), ("{}", "a", 2), ("{}", None, 1)]
    ]
    assert len(set(keys)) == 5
    assert all(len(value) >= 32 and int(value, 16) for value in keys)
    assert key("{}", None, 1) == key("{}", "", 1)
    assert key("{}", "1{}", 1) != key("{}{}", "1", 1)


def test_a_batch_line_becomes_its_request() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    said = {"tools": [tool], "tool_choice": "required", "response_format": {"type": "json_object"}}
    item = row(batch({**said, "max_completion_tokens": 7, "temperature": 0.5, "new_thing": {"a": [1]}, "stream": True}))
    assert item.request.client_key == "a"
    assert item.request.max_tokens == 7
    assert item.request.params == {"temperature": 0.5, "new_thing": {"a": [1]}}
    assert not item.request.interactive
    sent = {**said, "max_tokens": 7, "temperature": 0.5, "new_thing": {"a": [1]}, "model": "m", "messages": [USER]}
    assert orjson.loads(item.body) == sent


def test_defaults_fill_only_what_the_row_does_not_say() -> None:
    schema = {"type": "json_object"}
    defaults = Defaults(
        "d", "Be brief", schema, [{"type": "function"}], 50, datetime(2030, 1, 1, tzinfo=UTC), {"k": "v"}, 3, "wc", True
    )
    filled = row({"prompt": "Hi"}, defaults).request
    assert (filled.model, filled.max_tokens, filled.response_format) == ("d", 50, schema)
    assert filled.tools == [{"type": "function"}]
    assert [turn.role for turn in filled.messages] == ["system", "user"]
    assert (filled.deadline, filled.tags, filled.priority) == (defaults.deadline, {"k": "v"}, 3)
    assert filled.post_process == "wc"
    assert filled.whole
    said = batch({"model": "r", "max_completion_tokens": 5, "tools": [], "response_format": {"type": "text"}})
    own = row(said, defaults).request
    assert (own.model, own.max_tokens, own.tools, own.response_format) == ("r", 5, [], {"type": "text"})


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_default_system_gives_way_to_the_rows_own(role: str) -> None:
    turns = [{"role": role, "content": "Mine"}, USER]
    kept = row(batch({"messages": turns}), Defaults("m", "Be brief")).request
    assert [turn.content for turn in kept.messages] == ["Mine", "Hello"]


def test_unknown_keys_around_the_body_are_counted() -> None:
    reader = read(io.BytesIO(orjson.dumps(batch(note="x"))), Kind.JSONL, M, name="rows")
    assert isinstance(next(reader), Row)
    assert reader.ignored == Counter(note=1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (batch(method="GET"), "method: must be POST, not 'GET'"),
        (batch(url="/v1/embeddings"), "url: only /v1/chat/completions is supported, not '/v1/embeddings'"),
        ({**batch(), "body": [1]}, "body: must be an object, not a list"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}, "body: must be an object, not missing"),
        (batch(custom_id=None), "custom_id: is missing; a Batch line needs one"),
        (batch(custom_id=""), "custom_id: is empty"),
        (batch(custom_id=7), "custom_id: must be text"),
        (batch(custom_id="x" * 513), "custom_id: must be at most 512 characters"),
        (batch(custom_id="a\0"), "model and custom_id: must not hold a NUL character"),
        (
            batch({"max_tokens": 5, "max_completion_tokens": 6}),
            "max_tokens is 5 and max_completion_tokens 6; one of them",
        ),
        (batch({"max_tokens": "5"}), "max_tokens: must be a whole number"),
        (batch({"max_tokens": -1}), "max_tokens: must be greater than or equal to 1"),
        (batch({"max_tokens": 10**12}), "max_tokens: must be less than or equal to 10000000"),
        (batch({"messages": None}), "messages: is missing"),
        (batch({"messages": []}), "messages: is empty"),
        (batch({"messages": "Hi"}), "messages: must be a list"),
        (batch({"messages": ["Hi"]}), "messages.0: must be an object"),
        (batch({"messages": [{"content": "Hi"}]}), "messages.0.role: is missing"),
        (
            batch({"messages": [{"role": "bot", "content": "Hi"}]}),
            "messages.0.role: must be one of system, developer, user",
        ),
        (batch({"messages": [{"role": "user", "content": 5}]}), "messages.0.content: must be text or must be a list"),
        (batch({"messages": [{"role": "user", "content": ["Hi"]}]}), "messages.0.content.0: must be an object"),
        (batch({"messages": [{"role": "user", "content": ""}]}), "the prompt is empty"),
        (batch({"model": 5}), "model: must be text"),
        (batch({"model": "x" * 201}), "model: must be at most 200 characters"),
        (batch({"tools": {}}), "tools: must be a list"),
        (batch({"tool_choice": 4}), "tool_choice: must be text or must be an object"),
    ],
)
def test_a_bad_batch_line_says_what_is_wrong(line: dict[str, Any], says: str) -> None:
    assert reason(line).startswith(says)


def test_a_row_without_a_model_names_the_flag() -> None:
    assert "-m" in reason({"prompt": "Hi"}, defaults=Defaults())
    assert row({"prompt": "Hi", "model": "r"}, Defaults()).request.model == "r"


def test_a_prompt_a_line_with_what_it_says_itself() -> None:
    item = row(
        {
            "prompt": "Hi",
            "custom_id": "k",
            "model": "r",
            "system": "Be brief",
            "max_tokens": 9,
            "top_p": 1,
            "seed": None,
        }
    )
    assert item.request.client_key == "k"
    assert orjson.loads(item.body) == {
        "model": "r",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "top_p": 1,
    }


def test_unknown_keys_are_not_sent_but_counted_and_the_names_have_an_end() -> None:
    data = b"\n".join(orjson.dumps({"messages": [USER], "source": 1, f"k{n}": 1, "z" * 999: 1}) for n in range(300))
    reader = read(io.BytesIO(data), Kind.JSONL, M, name="rows")
    assert all(orjson.loads(item.body).keys() == {"model", "messages"} for item in reader if isinstance(item, Row))
    assert reader.ignored["source"] == reader.ignored["z" * 80] == 300
    assert reader.ignored.total() == 900
    assert len(reader.ignored) <= 101


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"question": "Hi", "turns": []}, "no prompt: the row has question, turns; understood are prompt or messages"),
        ({}, "no prompt: the row has nothing;"),
        ({"prompt": "Hi", "messages": [USER]}, "both prompt and messages"),
        ({"prompt": ["Hi"]}, "prompt: must be text, not a list"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": "Hi", "system": 1}, "system: must be text, not 1"),
        ({"system": "A", "messages": [{"role": "developer", "content": "B"}, USER]}, "both system and a system turn"),
        ({"a\nb\x1b[31m": 1}, "no prompt: the row has a�b�[31m;"),
    ],
)
def test_a_bad_plain_line_says_what_is_wrong(line: dict[str, Any], says: str) -> None:
    assert reason(line).startswith(says)


def test_real_prompts_of_others() -> None:
    if not (DATA / "prompts.jsonl").exists():
        pytest.skip("the shared data is not here")
    with (DATA / "prompts.jsonl").open("rb") as source:
        reader = Reader(source, None, M, name="prompts.jsonl")
        assert all(isinstance(item, Row) for item in reader)
    assert reader.ignored == Counter(source=495, answer_tokens=495)
    with (DATA / "mt_bench_questions.jsonl").open("rb") as source:
        items = list(read(source, None, M, name="mt_bench_questions.jsonl"))
    assert items
    assert all(isinstance(item, Reject) and "understood are prompt or messages" in item.reason for item in items)


@pytest.mark.parametrize(
    "defaults",
    [Defaults("m", priority=5000), Defaults("x" * 201), Defaults("m", tools=[{"a": {1}}]), Defaults("m", "\udcff")],
)
def test_defaults_that_no_row_can_meet_are_refused_at_once(defaults: Defaults) -> None:
    with pytest.raises(UsageError):
        rows(b"", defaults=defaults)
