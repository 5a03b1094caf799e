"""CSV with a header: typed cells, physical lines, and a broken row that does not spoil the next."""

import csv
import io
from collections import Counter

import orjson
import pytest
from hypothesis import given

from jobs.errors import UsageError
from router.formats import LIMIT
from router.intake import Kind, Reject, Row, read
from tests.rows import M, peak, rows, some_bytes, stream, table


@given(some_bytes)
def test_csv_never_raises_and_goes_forward(data: bytes) -> None:
    items = rows(b"prompt,n,model\n" + data, Kind.CSV)
    assert [item.line for item in items] == sorted({item.line for item in items})
    assert all(isinstance(item, Row) or item.reason.isprintable() for item in items)


def test_csv_cells_are_what_their_columns_ask_for() -> None:
    reader = read(
        io.BytesIO(
            b"Prompt,custom_id,model,system,max_tokens,temperature,logprobs,stop,metadata,source\r\n"
            b'"Say ""a, b""",7,5,Be brief,100.0,0.5,TRUE,1,"{""a"":""b""}",me\r\n'
            b"Hi,,,,,,,,,\r\n"
        ),
        Kind.CSV,
        M,
        name="rows",
    )
    first, second = reader
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.request.client_key == "7"
    assert orjson.loads(first.body) == {
        "model": "5",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": 'Say "a, b"'}],
        "max_tokens": 100,
        "temperature": 0.5,
        "logprobs": True,
        "stop": "1",
        "metadata": {"a": "b"},
    }
    assert orjson.loads(second.body) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert reader.ignored == Counter(source=1)


def test_csv_lines_are_physical_and_fields_may_hold_newlines() -> None:
    first, second, third = table("prompt,n", '"one', 'and two",1', "", "three", "four,1,2")
    assert isinstance(first, Row)
    assert first.request.messages[0].content == "one\nand two"
    assert (first.line, second.line, third.line) == (2, 5, 6)
    assert third == Reject(6, third.reason, b"four,1,2", None)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("prompt,n", "a,1,2"), "3 fields, but the header names 2 columns"),
        (("prompt,n", "a,many"), "n: 'many' is not a number, true, false or JSON"),
        (("prompt,n", "a,nan"), "n: 'nan' is not a number"),
        (("prompt,max_tokens", "a,1.5"), "max_tokens: must be a whole number"),
        (("prompt,n", ",1"), "the prompt is empty"),
        (("prompt,n", '"a" b,1'), "not CSV: ',' expected after '\"'"),
        (("prompt,n", '"a,1'), "not CSV: unexpected end of data"),
    ],
)
def test_a_bad_csv_row_says_what_is_wrong(lines: tuple[str, ...], says: str) -> None:
    (item,) = table(*lines)
    assert isinstance(item, Reject)
    assert item.reason.startswith(says)
    assert item.raw == lines[1].encode()


def test_a_csv_row_after_a_bad_one_is_still_read() -> None:
    bad, good = rows(b'prompt\n"one\nt\xe9wo"\nthree\n', Kind.CSV)
    assert isinstance(bad, Reject)
    assert bad.reason.startswith("not UTF-8: byte 0xE9 in column 2, 1 lines below its first")
    assert (bad.raw, good.line) == (b'"one\nt\xe9wo"', 4)


def test_other_delimiters_are_told_from_the_header() -> None:
    for mark in ";\t":
        (item,) = table(f"id{mark}prompt", f"1{mark}a, b")
        assert isinstance(item, Row)
        assert item.request.messages[0].content == "a, b"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("question,n", "rows, line 1: the CSV header names no column prompt, only question, n"),
        ("prompt,Prompt", "the CSV header names prompt twice"),
        ('prompt,"n', "the CSV header cannot be read"),
    ],
)
def test_a_header_that_cannot_be_used_is_wrong_usage(header: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        table(header, "a,b")


def test_what_the_csv_module_writes_is_read_back() -> None:
    prompts = ["plain", 'a "quoted", one', "two\nlines\r\nand three", "é\u2028", ";\t'"]
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["prompt"], *([prompt] for prompt in prompts)])
    assert [item.request.messages[0].content for item in rows(out.getvalue().encode(), Kind.CSV)] == prompts  # type: ignore[union-attr]


def test_an_endless_csv_row_is_one_reject_and_its_rest_never_becomes_a_prompt() -> None:
    mega = (b"pay for me, not " * 60 + b"\n") * 1000
    parts = [[b'prompt,x\n"'], [mega] * 40, [b'end",1\nnext,1\n"open'], [mega] * 20]
    (most, items), (bad, last) = peak(stream(piece for part in parts for piece in part), Kind.CSV)
    assert items == 3
    assert most < 8 * LIMIT  # csv.reader holds four bytes a character
    assert (bad.line, last.line) == (2, 2 + 40_000 + 2)
    assert "is a quote left open?" in bad.reason
    assert len(bad.raw) < 1200


def test_csv_memory_does_not_grow_with_the_file() -> None:
    line = b'"' + b"x" * 500 + b"\n" + b"x" * 500 + b'",a\n'
    pieces = (line if number else b"prompt,source\n" for number in range(20_001))
    (most, items), bad = peak(stream(pieces), Kind.CSV)
    assert (items, bad) == (20_000, [])
    assert most < 2_000_000
