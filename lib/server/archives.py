"""Session archives: nothing is unpacked outside its folder, and nothing endlessly large."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO


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
    try:
        for member, size, plain in _members(file, name):
            path = PurePosixPath(member.replace("\\", "/"))
            drive = path.parts and ":" in path.parts[0]
            if path.is_absolute() or ".." in path.parts or drive:
                raise ValueError(f"archive {name}: {member!r} lies outside the archive's folder")
            if not plain:
                raise ValueError(f"archive {name}: {member!r} is a link or a device")
            total += size
            if total > max_bytes:
                raise ValueError(f"archive {name}: unpacks to more than {max_bytes} bytes")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"archive {name}: cannot be read: {error}") from error
    finally:
        file.seek(0)


def _members(file: IO[bytes], name: str) -> Iterator[tuple[str, int, bool]]:
    """(name, unpacked size, whether it is a plain file or folder) of each member."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                link = (entry.external_attr >> 16) & 0o170000 == 0o120000
                yield entry.filename, entry.file_size, not link
        return
    with tarfile.open(fileobj=file) as tar:
        for info in tar:
            yield info.name, info.size, info.isreg() or info.isdir()
