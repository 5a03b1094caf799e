"""Whatever the bytes, every line that is not blank becomes one row or one reject, in constant memory."""

import gzip
import io
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import UsageError
from router.formats import LIMIT
from router.intake import Defaults, Kind, Reject, Row, canonical, read, sniff
from tests.rows import M, batch, peak, reason, rows, some_bytes, stream


@given(
    some_bytes, st.sampled_from([Kind.JSONL, Kind.TEXT]), st.sampled_from([M, Defaults(), Defaults("m", "Be brief")])
)
def test_every_line_that_is_not_blank_is_one_row_or_one_reject(data: bytes, kind: Kind, defaults: Defaults) -> None:
    data = b"#\n" + data  # a file that begins as another encoding is refused whole
    wanted = [number for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    items = rows(data, kind, defaults)
    assert [item.line for item in items] == wanted
    lines = data.split(b"\n")
    for item in items:
        if isinstance(item, Reject):
            assert item.raw == lines[item.line - 1].rstrip(b"\r")
            assert item.reason.isprintable()


@given(st.binary(max_size=40), st.sampled_from(["x", "x.csv", "x.jsonl", "x.txt"]))
def test_any_file_is_read_or_refused_whole(data: bytes, name: str) -> None:
    with suppress(UsageError):
        assert bool(list(read(io.BytesIO(data), None, M, name=name))) <= bool(data.strip())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[1]", "the line is a list, not a JSON object; jq"),
        (b'"Hi"', "the line is a string, not a JSON object"),
        (b"5", "the line is a number, not a JSON object"),
        (b"null", "the line is null, not a JSON object"),
        (b"true", "the line is true or false, not a JSON object"),
        (b"{", "not JSON: it ends in the middle; each line must be one whole object"),
        (b"{'prompt': 1}", "not JSON: unexpected character, expected a string key, in column 2"),
        (b'{"prompt":"Hi","n":NaN}', "not JSON: NaN and Infinity are no JSON numbers, in column 20"),
        (b'{"prompt":"Hi","n":-Infinity}', "not JSON: NaN and Infinity are no JSON numbers"),
        (b'{"n":1e999}', "not JSON: number is infinity"),
        (b'{"prompt":"\\ud800"}', "not JSON: no low surrogate"),
        ('{"prompt":"é'.encode() + b'\xe9"}', "not UTF-8: byte 0xE9 in column 13; convert"),
        (b'{"a":' * 2000, "nested too deeply"),
        (b'{"prompt":"x","metadata":' + b"[" * 250 + b"]" * 250 + b"}", "the request is nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object_says_so(line: bytes, says: str) -> None:
    assert reason(line).startswith(says)


def test_the_deepest_row_taken_can_be_dumped_again_inside_an_envelope() -> None:
    for depth in range(230, 260):
        line = b'{"messages":[{"role":"user","content":"x","y":' + b"[" * depth + b"]" * depth + b"}]}"
        (item,) = rows(line)
        if isinstance(item, Row):
            assert canonical(item.request.body()) == item.body
            orjson.dumps({"requests": [{"custom_id": "a", "params": {"body": orjson.loads(item.body)}}]})


def test_lines_are_split_on_newline_alone() -> None:
    sign = "a\u2028b\x85c"
    data = orjson.dumps({"prompt": sign}) + b"\r\n\n  \t\n" + orjson.dumps({"prompt": "z"})
    first, second = rows(data)
    assert isinstance(first, Row)
    assert first.request.messages[0].content == sign
    assert second.line == 4


def test_text_is_a_prompt_a_line() -> None:
    first, second, third = rows(b"\xef\xbb\xbfone \r\n\n{two}\n\xff", Kind.TEXT)
    assert isinstance(first, Row)
    assert first.request.messages[0].content == "one "
    assert isinstance(second, Row)
    assert (second.line, second.request.messages[0].content) == (3, "{two}")
    assert third == Reject(4, "not UTF-8: byte 0xFF in column 1; convert the file with iconv", b"\xff", None)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.jsonl", b"prompt\n", Kind.JSONL),
        ("a.NDJSON", b"", Kind.JSONL),
        ("a.json", b"", Kind.JSONL),
        ("a.csv", b"{}", Kind.CSV),
        ("a.tsv", b"", Kind.CSV),
        ("a.txt", b"{}", Kind.TEXT),
        ("stdin", b'{"prompt": 1}', Kind.JSONL),
        ("stdin", b"[", Kind.JSONL),
        ("stdin", b"\xef\xbb\xbf\n {", Kind.JSONL),
        ("stdin", b'id,"prompt"\r\n1,{', Kind.CSV),
        ("stdin", b"messages;id\n", Kind.CSV),
        ("a.data", b"Write a prompt, and then\n", Kind.TEXT),
        ("stdin", b"\xff", Kind.TEXT),
        ("stdin", b"", Kind.TEXT),
    ],
)
def test_sniff(name: str, head: bytes, kind: Kind) -> None:
    assert sniff(name, head) is kind
    assert read(io.BytesIO(b"\n"), None, M, name=name).kind is sniff(name, b"")


def test_a_kind_is_sniffed_from_a_stream_that_cannot_go_back() -> None:
    reader = read(stream(iter([b"\n", b"pro", b"mpt\nHi\n"])), None, M, name="stdin")
    assert reader.kind is Kind.CSV
    assert [item.line for item in reader] == [3]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('{"prompt": "a"}'.encode("utf-16"), "rows: the file begins as UTF-16, not UTF-8; .*iconv -f UTF-16 -t UTF-8"),
        ('{"prompt": "a"}'.encode("utf-16-le"), "iconv -f UTF-16LE"),
        ('{"prompt": "a"}'.encode("utf-16-be"), "iconv -f UTF-16BE"),
        ('{"prompt": "a"}'.encode("utf-32"), "iconv -f UTF-32 "),
        ('{"prompt": "a"}'.encode("utf-32-le"), "iconv -f UTF-32LE"),
        ('{"prompt": "a"}'.encode("utf-32-be"), "iconv -f UTF-32BE"),
        (gzip.compress(b"{}", mtime=0), "the file is gzip; unpack it first: gunzip -c"),
    ],
)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_file_in_another_encoding_is_refused_whole(data: bytes, says: str, kind: Kind) -> None:
    with pytest.raises(UsageError, match=says):
        rows(data, kind)


@pytest.mark.parametrize(("kind", "count"), [(Kind.JSONL, 50_000), (Kind.TEXT, 10_000)])
def test_memory_does_not_grow_with_the_file(kind: Kind, count: int) -> None:
    line = orjson.dumps(batch({"messages": [{"role": "user", "content": "x" * 800}]})) + b"\n"
    (most, items), bad = peak(stream(line for _ in range(count)), kind)
    assert (items, bad) == (count, [])
    assert most < 2_000_000


@pytest.mark.parametrize("kind", [Kind.JSONL, Kind.TEXT])
def test_an_endless_line_is_one_reject_and_is_not_held(kind: Kind) -> None:
    mega = b'" ' * 500_000
    parts = [[b'{"prompt":"a"}\n'], [mega] * 64, [b'\n{"prompt":"b"}\n']]
    (most, items), (bad,) = peak(stream(piece for part in parts for piece in part), kind)
    assert items == 3
    assert most < 3 * LIMIT
    assert (bad.line, bad.raw[:4]) == (2, b'" " ')
    assert bad.raw.endswith(b"[cut here: the first 1024 of 64000001 bytes]")
    assert "more than 16 MiB" in bad.reason


def test_a_row_of_just_the_limit_is_taken() -> None:
    empty = orjson.dumps({"prompt": "x"}) + b"\n"
    full = orjson.dumps({"prompt": "x" * (LIMIT - len(empty) + 1)}) + b"\n"
    taken, following = rows(full + empty)
    assert isinstance(taken, Row)
    over, following = rows(full.replace(b"x", b"xx", 1) + empty)
    assert isinstance(over, Reject)
    assert isinstance(following, Row)
    assert following.line == 2
