"""Lists of batches and files, as servers give them: pages, gaps, nulls, circles and errors."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest

from jobs.errors import Transient
from tests.batch_wire import scripted
from tests.wire import Script, Server, reply

T = TypeVar("T")


async def every(found: AsyncIterator[T]) -> list[T]:
    return [one async for one in found]


def listed(name: str, *scripts: Script) -> Any:
    async def test(made: Any, server: Server) -> Any:
        return await every(made.listed()), [one.target for one in server.asked]

    return scripted(name, test, *scripts)


def files(*scripts: Script) -> Any:
    async def test(made: Any, _: Server) -> Any:
        return await every(made.files())

    return scripted("openai", test, *scripts)


@pytest.mark.parametrize(("name", "cursor"), [("openai", "after=b2"), ("anthropic", "after_id=b2")])
def test_all_pages_are_read(name: str, cursor: str) -> None:
    first = {"data": [{"id": "b1"}, {"id": "b2"}], "has_more": True, "last_id": "b2"}
    found, asked = listed(name, reply(first), reply({"data": [{"id": "b3"}], "has_more": False}))
    assert [one.id for one in found] == ["b1", "b2", "b3"]
    assert len(asked) == 2
    assert cursor in asked[1]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_cursor_that_goes_in_circles_ends(name: str) -> None:
    found, asked = listed(name, reply({"data": [{"id": "b1"}], "has_more": True, "last_id": "b1"}))
    assert [one.id for one in found] == ["b1"]
    assert len(asked) == 2


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": [None, 3, {}, {"id": None}, {"id": ""}]}])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_what_is_missing_is_left_out(name: str, body: Any) -> None:
    assert listed(name, reply(body))[0] == []


def test_the_mark_is_read_and_its_lack_survived() -> None:
    ours = {"id": "b1", "metadata": {"shunter_batch": "x", "shunter_install": "y"}, "status": "scheduling"}
    bare = {"id": "b2", "metadata": None, "request_counts": None, "errors": None, "created_at": None}
    (first, second), _ = listed("openai", reply({"data": [ours, bare]}))
    assert (first.batch_id, first.install, first.terminal) == ("x", "y", False)
    assert (second.batch_id, second.install, second.status, second.done) == (None, None, "unknown", 0)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_server_that_fails_says_so(name: str) -> None:
    with pytest.raises(Transient, match="500"):
        listed(name, reply({"error": {"message": "no connected db"}}, 500))


def test_files_whatever_is_left_out_of_them() -> None:
    whole = {"id": "f1", "filename": "a.jsonl", "purpose": "batch", "bytes": 12, "created_at": 1_790_000_000}
    first, second = files(reply({"data": [whole, {"id": "f2", "bytes": None, "filename": None}, {"bytes": 3}]}))
    assert (first.id, first.name, first.purpose, first.bytes) == ("f1", "a.jsonl", "batch", 12)
    assert first.created_at is not None
    assert (second.name, second.purpose, second.bytes, second.created_at) == ("", "", 0, None)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_files_has_none(status: int) -> None:
    assert files(reply({"error": {"message": "no"}}, status)) == []
