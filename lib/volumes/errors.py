"""The one exception that bad volumes raise."""

from __future__ import annotations

import errno
from pathlib import Path

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
TARGET_ERRORS = DISK_FULL | READ_ONLY
"""What a place says that takes no files; nothing is wrong with the file."""


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


def damaged_target(path: Path | str, error: BaseException) -> VolumeError:
    """An existing target that cannot be opened for writing."""
    return VolumeError(
        path,
        f"exists and cannot be opened ({error})",
        "a file of this kind",
        "remove it or choose another target",
    )
