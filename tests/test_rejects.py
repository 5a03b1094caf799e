"""The file that keeps what could not be sent."""

import os
from pathlib import Path

import orjson
import pytest

from jobs.errors import UsageError
from router.intake import Reject, Rejects


def test_rejects_are_kept_beside_the_file_and_never_over_earlier_ones(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with Rejects(tmp_path / "in.csv") as rejects:
            assert rejects.path is None
            rejects.add(Reject(number, "why", "é\n".encode(), "a"))
            rejects.add(Reject(9, "not UTF-8", b"\xe9", None))
        name = "in.rejects.jsonl" if number == 1 else f"in-{number}.rejects.jsonl"
        assert rejects.path == tmp_path / name
        assert rejects.path.stat().st_mode & 0o777 == 0o600
        assert [orjson.loads(line) for line in rejects.path.read_bytes().splitlines()] == [
            {"line": number, "reason": "why", "custom_id": "a", "raw": "é\n"},
            {"line": 9, "reason": "not UTF-8", "custom_id": None, "raw": "\\xe9", "raw_base64": "6Q=="},
        ]


def test_without_rejects_there_is_no_file(tmp_path: Path) -> None:
    with Rejects(tmp_path / "gone" / "in.csv") as rejects:
        pass
    assert rejects.path is None
    assert not list(tmp_path.iterdir())


def test_rejects_of_stdin_are_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Rejects(None) as rejects:
        rejects.add(Reject(1, "why", b"x", None))
    assert [path.name for path in tmp_path.iterdir()] == ["stdin.rejects.jsonl"]


def test_rejects_that_cannot_be_kept_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with (
        Rejects(folder / "in.csv") as rejects,
        pytest.raises(UsageError, match="rejected rows cannot be kept there: No such"),
    ):
        rejects.add(Reject(1, "why", b"x", None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with Rejects(tmp_path / "in.csv") as rejects, pytest.raises(UsageError, match="Permission denied"):
        rejects.add(Reject(1, "why", b"x", None))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full disk")
def test_a_full_disk_is_said_at_once(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "in.csv")
    rejects.add(Reject(1, "why", b"x", None))
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), rejects._file.fileno())  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="No space left"):
        rejects.add(Reject(2, "why", b"y", None))
    with pytest.raises(UsageError, match="No space left"), rejects:
        pass
