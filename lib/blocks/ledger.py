"""Which blocks of which stage are done: an append-only file that a kill cannot spoil.

    .neuropil/ledger.jsonl   one line a block: {"stage", "index", "state", "seconds", ...}
    .neuropil/lock           held by the driver while it lives

A line is written, and on the disk, after everything that the block wrote. A line cut off by a
kill does not count. Blocks without a line are done (again): tasks give the same bytes each time.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.blocks.plan import FOLDER
from lib.volumes.atomic import make_folder, sync_folder
from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError


@dataclass(frozen=True)
class Entry:
    """What became of one block.

    Args:
        stage: of the run.
        index: of the block.
        error: "" when it is done.
        seconds: it took.
        at: seconds since the epoch.
        worker: who did it.
        value: what the task told.
    """

    stage: str
    index: Triple
    error: str = ""
    seconds: float = 0.0
    at: float = 0.0
    worker: str = ""
    value: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The blocks of one output.

    Args:
        out: the output's folder.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / FOLDER / "ledger.jsonl"
        self.entries: dict[str, dict[Triple, Entry]] = defaultdict(dict)
        self._read()

    def done(self, stage: str) -> set[Triple]:
        """Indices of the blocks that are done."""
        return {i for i, e in self.entries[stage].items() if not e.error}

    def failed(self, stage: str) -> list[Entry]:
        """Blocks whose last try failed."""
        return sorted((e for e in self.entries[stage].values() if e.error), key=lambda e: e.index)

    def add(self, entry: Entry) -> None:
        """Note a block; the line is on the disk when this returns.

        Raises:
            OSError: the disk is full, or fails.
        """
        new = not self.path.exists()
        make_folder(self.path.parent)
        row = {**entry.__dict__, "index": list(entry.index), "at": entry.at or time.time()}
        # The newline comes first: a line cut off by a kill does not spoil the next one.
        line = b"\n" + json.dumps(row, allow_nan=False).encode()
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path.parent)
        self.entries[entry.stage][entry.index] = entry

    def _read(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    x, y, z = (int(n) for n in row["index"])
                    entry = Entry(**{**row, "index": (x, y, z)})
                except (ValueError, KeyError, TypeError):
                    continue  # cut off by a kill
                self.entries[entry.stage][entry.index] = entry


@contextmanager
def only_driver(out: Path) -> Iterator[None]:
    """Hold the output for this process; the kernel lets go when it dies, however that is.

    Raises:
        VolumeError: another driver is at work; says which.
    """
    path = out / FOLDER / "lock"
    make_folder(path.parent)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise VolumeError(
                out, f"another run is at work on it ({lock.read().strip() or 'not said where'})",
                remedy="wait for it or stop it; `main.py status` tells how far it is",
            ) from error  # fmt: skip
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def holder(out: Path) -> str:
    """Who is at work on an output; "" when nobody is."""
    path = out / FOLDER / "lock"
    if not path.exists():
        return ""
    with path.open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return lock.read().strip() or "another run"
    return ""
