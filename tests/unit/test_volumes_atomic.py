"""Files appear whole or not at all."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from lib.volumes.atomic import (
    LEFTOVER_SECONDS,
    SUFFIX,
    StagedFiles,
    json_bytes,
    put_in_place,
    remove_leftovers,
    set_aside,
    write_bytes,
    write_json,
)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


def test_files_appear_together_at_the_commit(tmp_path: Path) -> None:
    with StagedFiles() as staged:
        staged.create(tmp_path / "a" / "one").write(b"1")
        staged.name(tmp_path / "two").write_bytes(b"2")
        assert names(tmp_path).isdisjoint({"one", "two"})
        staged.commit()
    assert names(tmp_path) == {"one", "two"}
    assert (tmp_path / "a" / "one").read_bytes() == b"1"
    assert (tmp_path / "two").read_bytes() == b"2"


def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "one", b"old")
    with pytest.raises(KeyError), StagedFiles() as staged:
        staged.create(tmp_path / "one").write(b"new")
        staged.name(tmp_path / "two").write_bytes(b"2")
        raise KeyError
    assert names(tmp_path) == {"one"} and (tmp_path / "one").read_bytes() == b"old"


def test_a_named_file_that_was_never_written_is_no_commit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), StagedFiles() as staged:
        staged.create(tmp_path / "one").write(b"1")
        staged.name(tmp_path / "two")
        staged.commit()
    assert names(tmp_path) == set()


def test_sealed_files_outlive_the_block_and_are_put_in_place_later(tmp_path: Path) -> None:
    with StagedFiles() as staged:
        staged.create(tmp_path / "one").write(b"1")
        sealed = staged.seal()
    assert not (tmp_path / "one").exists()
    put_in_place(sealed)
    assert names(tmp_path) == {"one"}


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(ValueError):
        json_bytes({"a": float("nan")})


def test_an_unreadable_file_is_set_aside_under_a_free_name(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / "a").write_bytes(b"?")
        moved = set_aside(tmp_path / "a", "damaged")
        assert moved is not None and moved.name == f"a.unreadable-{n}"
    assert set_aside(tmp_path / "a", "there is none") is None


def test_leftovers_of_dead_processes_and_old_ones_go(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the largest process id
    young, old = (tmp_path / f".x{i}.{os.getpid()}-{i}{SUFFIX}" for i in (1, 2))
    killed, other = tmp_path / f".y.{dead}-1{SUFFIX}", tmp_path / "y.nii"
    for path in (young, old, killed, other):
        path.touch()
    long_ago = time.time() - 2 * LEFTOVER_SECONDS
    os.utime(old, (long_ago, long_ago))
    assert set(remove_leftovers([tmp_path])) == {old, killed}
    assert names(tmp_path) == {young.name, other.name}


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead, alive = tmp_path / ".a.nii.999999999-3.part", tmp_path / f".a.nii.{os.getpid()}-3.part"
    old = tmp_path / f".b.nii.{os.getpid()}.part"
    for path in (dead, alive, old):
        path.write_text("")
    os.utime(old, (0, 0))
    assert sorted(remove_leftovers([tmp_path, tmp_path / "missing"])) == sorted([dead, old])
    assert alive.exists()


def test_threads_that_write_one_file_at_the_same_time_leave_one_of_their_versions(tmp_path):
    texts = [bytes([i]) * 300_000 for i in range(8)]
    threads = [
        threading.Thread(target=write_bytes, args=(tmp_path / "new" / "one", t)) for t in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "new" / "one").read_bytes() in texts
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["one"]
