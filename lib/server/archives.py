"""Session archives: nothing is unpacked outside its folder, and nothing endlessly large."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from lib.volumes.readers.region import REGION

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_NAME = 200
# Encrypted members are a RuntimeError, unknown methods a NotImplementedError of zipfile.
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
    RuntimeError, NotImplementedError,
)  # fmt: skip


def check_archive(file: IO[bytes], name: str, max_bytes: int) -> None:
    """Refuse an archive whose members leave the folder or pass the size limit.

    Args:
        file: the upload; left at its start.
        name: its file name, which decides how it is read later.
        max_bytes: the most it may unpack to.

    Raises:
        ValueError: naming the member at fault, or that this is no archive.
    """
    total = 0
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    if not name.lower().endswith(ENDINGS):
        raise ValueError(f"archive {name[:80]}: expected one of {', '.join(ENDINGS)}")
    try:
        for member, size, kind in _members(file, name):
            path = PurePosixPath(member.replace("\\", "/"))
            drive = path.parts and ":" in path.parts[0]
            if path.is_absolute() or ".." in path.parts or drive:
                raise ValueError(f"archive {name}: {member!r} lies outside the archive's folder")
            if kind == "other":
                raise ValueError(f"archive {name}: {member!r} is a link or a device")
            if any(len(p.encode(errors="replace")) > MOST_NAME for p in path.parts):
                raise ValueError(f"archive {name}: {member[:80]!r}... is too long a name")
            folders |= set(path.parents) | ({path} if kind == "folder" else set())
            if kind == "file":
                files.add(path)
            if path.name.lower().endswith(REGION):
                raise ValueError(f"archive {name}: {member!r} names a file of this machine")
            total += size
            if total > max_bytes:
                raise ValueError(f"archive {name}: unpacks to more than {max_bytes} bytes")
        if both := files & folders:
            raise ValueError(f"archive {name}: {min(both)} is a file and a folder")
    except UNREADABLE as error:
        raise ValueError(f"archive {name}: cannot be read: {error}") from error
    finally:
        file.seek(0)


def _members(file: IO[bytes], name: str) -> Iterator[tuple[str, int, str]]:
    """(name, unpacked size, "file", "folder" or "other") of each member that can be unpacked."""
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                link = (entry.external_attr >> 16) & 0o170000 == 0o120000
                kind = "other" if link else "folder" if entry.is_dir() else "file"
                yield entry.filename, entry.file_size, kind
            if broken := archive.testzip():  # all sizes were let through: read it once
                raise zipfile.BadZipFile(f"{broken!r} is damaged")
        return
    with tarfile.open(fileobj=file) as tar:
        for info in tar:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "other"
            yield info.name, info.size, kind
