"""The one exception that bad volumes raise, and what readers and writers say with it."""

from __future__ import annotations

import errno
import re
import struct
import zipfile
import zlib
from pathlib import Path

from lib.volumes.contents import foreign_chunk, foreign_content

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
TARGET_ERRORS = DISK_FULL | READ_ONLY
"""What a place says that takes no files; nothing is wrong with the file."""
DAMAGED_ARRAYS = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What NumPy raises for a file of arrays (.npz) that was cut short, changed or is no such file."""
_LOCKED = ("unable to lock file", "already open for write", "Resource temporarily unavailable")
"""How HDF5 says that a file is held by its writer."""
_CHUNK = re.compile(r'local file "([^"]+)"')
"""How tensorstore names the file of a chunk."""


class VolumeError(ValueError):
    """A volume, label or study file that cannot be used as asked.

    The message is one line: where, what was found, what was expected, what to do.

    Args:
        where: file (and dataset) it is about.
        found: what was found there.
        expected: what was needed; left out when empty.
        remedy: what the user can do; left out when empty.
    """

    def __init__(self, where: object, found: str, expected: str = "", remedy: str = "") -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.remedy = remedy
        text = f"{where}: {found}"
        if expected:
            text += f"; expected {expected}"
        if remedy:
            text += f"; {remedy}"
        super().__init__(" ".join(text.split()))

    def __reduce__(self) -> tuple[type[VolumeError], tuple[str, str, str, str]]:
        """Keep the parts when an error crosses a process border."""
        return type(self), (self.where, self.found, self.expected, self.remedy)


class DiskError(VolumeError):
    """A place that takes no files: full, or not to be written.

    Args:
        where, found, expected, remedy: see VolumeError.
        full: whether it is full.
    """

    def __init__(
        self,
        where: Path | str,
        found: str,
        expected: str = "",
        remedy: str = "",
        full: bool = False,
    ) -> None:
        super().__init__(where, found, expected, remedy)
        self.full = full

    def __reduce__(self) -> tuple[type[VolumeError], tuple[str, str, str, str, bool]]:  # type: ignore[override]
        return type(self), (self.where, self.found, self.expected, self.remedy, self.full)


def disk_error(path: Path | str, error: OSError, kept: str = "") -> VolumeError:
    """A write that failed, in words; a full disk and a read-only one say so.

    Args:
        kept: what was written all the same and counts, in words.
    """
    left = f"{kept} is kept and will be used later" if kept else "nothing was left behind"
    if error.errno in DISK_FULL:
        return DiskError(
            path,
            f"the disk filled up while writing ({error.strerror})",
            remedy=f"free some space or choose another folder; {left}",
            full=True,
        )
    if error.errno in READ_ONLY:
        return DiskError(
            path,
            f"cannot be written ({error.strerror})",
            remedy=f"mount it for writing or change its rights; {left}",
        )
    return VolumeError(path, f"cannot be written ({error.strerror or error})")


def damaged(where: str, error: BaseException) -> VolumeError:
    """What a reader says when a file cannot be decoded; only what is damaged is called so.

    Args:
        where: the file, if what it holds is to be told.
        error: what reading it raised.
    """
    text = str(error) or type(error).__name__
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EAGAIN, errno.EBUSY) or any(words in text for words in _LOCKED):
        return VolumeError(
            where, f"in use by the program that writes it ({text[:300]})",
            remedy="close it there, or clear what a killed program left with h5clear -s",
        )  # fmt: skip
    if code in (errno.EACCES, errno.EPERM):
        return VolumeError(where, "no permission to read it", remedy="change its permissions")
    if code == errno.ENOENT:
        return VolumeError(where, f"a file that is missing ({text[:300]})")
    if code is not None:
        return VolumeError(where, f"cannot be read ({text[:300]})", remedy="try again")
    if "requires the 'imagecodecs'" in text:  # tifffile leaves some compressions to it
        return VolumeError(
            where,
            f"compressed in a way that this installation cannot read ({text[:300]})",
            remedy="pip install imagecodecs, or save the file uncompressed or with zlib",
        )
    chunk = _CHUNK.search(text)
    if content := foreign_chunk(Path(chunk[1])) if chunk else foreign_content(Path(where)):
        where = chunk[1] if chunk else where
        return VolumeError(where, content.found, remedy=content.remedy)
    return VolumeError(
        where,
        f"truncated or damaged ({text[:300]})",
        remedy="fetch or write the file again",
    )


def damaged_target(path: Path | str, error: BaseException) -> VolumeError:
    """An existing target that cannot be opened for writing."""
    return VolumeError(
        path,
        f"exists and cannot be opened ({error})",
        "a file of this kind",
        "remove it or choose another target",
    )
