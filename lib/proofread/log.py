"""The log of edits of one item: lines are added, flushed to the disk and never changed.

    <root>/edits/<id>/edits.jsonl   one edit a line
    <root>/edits/<id>/masks/        their voxels (lib/proofread/payloads.py)

A process killed while it writes leaves half a line at the end, which was never acknowledged:
readers leave it out, and the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lib.proofread.edits import Edit
from lib.proofread.payloads import Payloads
from lib.volumes.atomic import make_folder, sync_folder
from lib.volumes.errors import VolumeError

TAIL = 1 << 16


class EditLog:
    """The edits of one item, shared by the processes of a machine.

    Args:
        root: the study's folder.
        item_id: the item.
    """

    def __init__(self, root: Path, item_id: str) -> None:
        self.folder = root / "edits" / item_id
        self.path = self.folder / "edits.jsonl"
        self.payloads = Payloads(self.folder / "masks")
        self._edits: list[Edit] = []
        self._read_to = 0
        self._writer: int | None = None  # the thread that is alone with the log
        self._waiting: list[Edit] | None = None  # made by `together`, not on the disk yet

    def edits(self) -> list[Edit]:
        """All edits, undone ones too, oldest first.

        Raises:
            VolumeError: a line in the middle is damaged.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._read_to:  # the item was replaced
            self._edits, self._read_to = [], 0
        if size > self._read_to:
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                whole = file.read(size - self._read_to)
            whole = whole[: whole.rfind(b"\n") + 1]
            found = [self._parse(line, n) for n, line in enumerate(whole.splitlines())]
            self._edits = [*self._edits, *found]
            self._read_to += len(whole)
        waiting = self._waiting
        return [*self._edits, *waiting] if waiting else self._edits

    @contextmanager
    def writing(self) -> Iterator[EditLog]:
        """Alone with the log: what is read inside stays the newest until `append`."""
        if self._writer == threading.get_ident():
            yield self
            return
        make_folder(self.folder)
        with (self.folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._writer = threading.get_ident()
            try:
                yield self
            finally:
                self._writer = None

    @contextmanager
    def together(self) -> Iterator[EditLog]:
        """`writing`, but edits are on the disk when it ends: all are flushed at once.

        An exception enters none of them.
        """
        with self.writing():
            edits = self._waiting = []
            try:
                with self.payloads.together():
                    yield self
            finally:
                self._waiting = None
            if edits:
                self._write(edits)

    def append(self, edit: Edit) -> None:
        """Add an edit; inside `writing` only. It is on the disk when this, or `together`, ends."""
        if self._waiting is None:
            self._write([edit])
        else:
            self._waiting.append(edit)

    def _write(self, edits: Sequence[Edit]) -> None:
        lines = "".join(
            json.dumps(edit.to_dict(), ensure_ascii=True, allow_nan=False) + "\n" for edit in edits
        )
        new = not self.path.exists()
        with self.path.open("r+b" if not new else "w+b") as file:
            file.seek(_end_of_lines(file))
            file.truncate()
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.folder)

    def _parse(self, line: bytes, number: int) -> Edit:
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ValueError("a JSON object is needed")
            return Edit.from_dict(data)
        except ValueError as error:
            raise VolumeError(
                self.path, f"line {len(self._edits) + number + 1} is damaged ({error})",
                "one edit in each line",
                "put the file aside, and begin a new one with the lines before this one",
            ) from error  # fmt: skip


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - TAIL)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
