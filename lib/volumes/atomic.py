"""Files that appear whole or not at all.

Every file is written beside its place under a hidden temporary name, flushed to the disk and
renamed; a process killed at any moment leaves the old file or the new one, and at worst a
hidden leftover that `remove_leftovers` clears.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

logger = logging.getLogger("neuropil.volumes")

SUFFIX = ".part"
_numbers = itertools.count()
MOST_SYNCS = 16
LEFTOVER_SECONDS = 3600.0
"""A younger temporary file of a living process may still be in use."""


class StagedFiles:
    """Several files that are written aside and renamed into place together, in order.

    Use as a context manager: `create` files, then `commit`. Leaving the block without a
    commit removes what was written.
    """

    def __init__(self) -> None:
        self._files: list[tuple[BinaryIO | None, Path, Path]] = []

    def create(self, target: Path) -> BinaryIO:
        """Open a temporary file that `commit` renames to `target`."""
        aside = aside_of(target)
        file = aside.open("w+b")
        self._files.append((file, aside, target))
        return file

    def name(self, target: Path) -> Path:
        """A temporary file's name, for a library that opens files itself; see `create`.

        It must be written and closed before `commit`.
        """
        aside = aside_of(target)
        self._files.append((None, aside, target))
        return aside

    def commit(self) -> None:
        """Flush everything to the disk, then rename in the order of creation.

        Raises:
            OSError: a file cannot be flushed; then nothing has been renamed.
        """
        put_in_place(self.seal())

    def seal(self) -> list[tuple[Path, Path]]:
        """Flush everything to the disk and let go of it, for a `put_in_place` elsewhere.

        Returns:
            (where it lies, where it belongs) of each file.

        Raises:
            OSError: a file cannot be flushed.
        """
        with contextlib.ExitStack() as opened:
            files = [
                file or opened.enter_context(aside.open("rb")) for file, aside, _ in self._files
            ]
            for file in files:
                file.flush()
            sync_files(files)
        for file in files:
            file.close()
        sealed = [(aside, target) for _, aside, target in self._files]
        self._files.clear()
        return sealed

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove what was written."""
        for file, aside, _ in self._files:
            # Closing flushes; on a full disk that fails again. The file goes anyway.
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()
            aside.unlink(missing_ok=True)
        self._files.clear()


def aside_of(target: Path) -> Path:
    """A hidden name beside a target under which it is written; its folder is made."""
    make_folder(target.parent)
    # Threads of one process may write the same target at the same time.
    owner = f"{os.getpid()}-{next(_numbers)}"
    return target.with_name(f".{target.name}.{owner}{SUFFIX}")


def put_in_place(sealed: Sequence[tuple[Path, Path]]) -> None:
    """Rename sealed files to where they belong, in order; see `StagedFiles.seal`.

    Raises:
        OSError: one cannot be renamed; it and those after it are removed.
    """
    try:
        for aside, target in sealed:
            aside.replace(target)
    finally:
        for aside, _ in sealed:
            aside.unlink(missing_ok=True)
    for folder in {target.parent for _, target in sealed}:
        sync_folder(folder)


def swap_folder(new: Path, target: Path) -> None:
    """Put a whole folder in the place of another, which is removed then."""
    old = aside_of(target)
    target.rename(old)
    new.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old)


def write_bytes(target: Path, data: bytes) -> None:
    """Replace one file's content atomically."""
    with StagedFiles() as staged:
        staged.create(target).write(data)
        staged.commit()


def json_bytes(data: Any) -> bytes:
    """Indented, sorted JSON without NaN, which no strict parser reads."""
    text = json.dumps(data, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.encode() + b"\n"


def write_json(target: Path, data: Any) -> None:
    """Replace one JSON file atomically."""
    write_bytes(target, json_bytes(data))


def set_aside(path: Path, reason: object) -> Path | None:
    """Rename a file that cannot be read, so that a new one can take its place.

    Returns:
        Its new name, "<name>.unreadable-<n>"; None where it cannot be renamed either.
    """
    names = (path.with_name(f"{path.name}.unreadable-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    try:
        path.rename(aside)
    except OSError as error:
        logger.error("%s cannot be read (%s), nor set aside (%s)", path, reason, error)
        return None
    logger.error("%s cannot be read (%s); it is set aside as %s", path, reason, aside.name)
    return aside


def sync_files(files: Sequence[BinaryIO]) -> None:
    """Wait until open files are on the disk, all at once: a journal writes many as fast as one."""
    if len(files) < 2:
        for file in files:
            os.fsync(file.fileno())
        return
    with ThreadPoolExecutor(min(len(files), MOST_SYNCS)) as threads:
        list(threads.map(os.fsync, [file.fileno() for file in files]))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it so that they survive a power cut."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folders: Iterable[Path]) -> list[Path]:
    """Remove temporary files and folders of processes that were killed.

    One whose process still runs is kept until it is LEFTOVER_SECONDS old: process ids
    are used again, and a study may be shared by machines.

    Returns:
        The removed paths.
    """
    removed = []
    for folder in folders:
        for path in folder.glob(f".*{SUFFIX}"):
            owner = path.name.removesuffix(SUFFIX).rpartition(".")[2].partition("-")[0]
            alive = owner.isdigit() and Path(f"/proc/{owner}").exists()
            try:
                old = time.time() - path.stat().st_mtime > LEFTOVER_SECONDS
                if old or not alive:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed.append(path)
            except FileNotFoundError:
                continue  # another process cleared it first
    return removed
