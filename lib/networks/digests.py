"""A weights file has its SHA-256 beside it, and is read only as it was written.

`neuropil.pt.sha256` is in the format of `sha256sum`, so that anybody can check it without this
app. Reading weights does not notice a changed byte; the digest does.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lib.volumes.atomic import StagedFiles, sync_folder, write_bytes
from lib.volumes.contents import HEAD_BYTES, stand_in

SUFFIX = ".sha256"
TRIES = 5
"""A file replaced so often while it is read is given up."""


def digest_path(path: Path) -> Path:
    """Where the digest of a weights file lies."""
    return path.with_name(path.name + SUFFIX)


def recorded_digest(path: Path) -> str | None:
    """The digest beside a file, in lower case; None where there is none.

    Raises:
        ValueError: the digest file does not start with one.
    """
    beside = digest_path(path)
    try:
        text = beside.read_text(errors="replace")
    except FileNotFoundError:
        return None
    found = re.match(r"([0-9a-fA-F]{64})\b", text)
    if found is None:
        raise ValueError(
            f"{beside}: expected 64 hexadecimal digits and the file's name, found {text[:80]!r}; "
            f"write it with: sha256sum {path.name} > {beside.name}"
        )
    return found[1].lower()


def read_checked(path: Path) -> bytes:
    """The content of a weights file, which is what its digest says.

    A file without a digest is read as it is. One that is replaced meanwhile is read again.

    Raises:
        ValueError: the content is not what the digest says, or something left in its place.
        FileNotFoundError: no such file.
    """
    for _ in range(TRIES):
        expected = recorded_digest(path)
        data = path.read_bytes()
        if other := stand_in(data[:HEAD_BYTES]):
            raise ValueError(f"weights {path}: {other.told}")
        found = hashlib.sha256(data).hexdigest()
        if expected is None or found == expected:
            return data
        if recorded_digest(path) == expected:
            break
    beside = digest_path(path).name
    raise ValueError(
        f"weights {path}: damaged or replaced by hand: found sha256 {found}, expected {expected} "
        f"as {beside} says; fetch the file again or go back to the version before "
        "(python main.py train --restore); if you put this file there yourself, run "
        f"sha256sum {path.name} > {beside} in its folder"
    )


def digest_of(path: Path) -> str:
    """SHA-256 of a weights file, in lower case: as recorded beside it, else computed.

    Raises:
        ValueError: the digest file does not start with one.
        FileNotFoundError: no such file.
    """
    return recorded_digest(path) or hashlib.sha256(path.read_bytes()).hexdigest()


def place_weights(path: Path, data: bytes, digest: str | None = None) -> None:
    """Write a weights file and its digest so that a reader never sees one belie the other.

    The old digest goes first and the new one comes last: a process killed in between leaves
    a whole file, old or new, that just is not checked.

    Args:
        path: target; its folder is made.
        data: the content.
        digest: to record; that of the content when not given.
    """
    with StagedFiles() as staged:
        staged.create(path).write(data)
        beside = digest_path(path)
        if beside.exists():
            beside.unlink()
            sync_folder(path.parent)
        staged.commit()
    digest = digest or hashlib.sha256(data).hexdigest()
    write_bytes(beside, f"{digest}  {path.name}\n".encode())
