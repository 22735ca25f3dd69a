"""What a file holds where it is not what its name says, told from its first bytes."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from dataclasses import dataclass
from pathlib import Path

HEAD_BYTES = 1024
_PAGE = re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head)\b", re.I | re.S)
_TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,80})", re.I)
_ERROR = re.compile(rb"(<\?xml[^>]*>\s*)?<error>", re.I)
_CODE = re.compile(rb"<code>([^<]{1,80})", re.I)
_METADATA = (".json", ".zarray", ".zattrs", ".zgroup", "info")
"""How names of files end that are text: what is wrong with them is not that they are."""


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Args:
        found: in words.
        remedy: what the user can do; left out when empty.
    """

    found: str
    remedy: str = ""

    @property
    def told(self) -> str:
        """One phrase."""
        return f"{self.found}; {self.remedy}" if self.remedy else self.found


_LFS = Content("a Git LFS pointer, not the file itself", "run `git lfs pull` where it was cloned")
_ANNEX = Content(
    "a git-annex pointer, not the file itself",
    "run `datalad get` or `git annex get` where it was cloned",
)


@dataclass(frozen=True)
class _Kind:
    """A kind of file that begins with known bytes."""

    name: str
    mark: bytes
    endings: tuple[str, ...]
    at: int = 0


_KINDS = (
    _Kind("an HDF5 file", b"\x89HDF\r\n\x1a\n", (".h5", ".hdf5", ".hdf", ".he5")),
    _Kind("a PNG image", b"\x89PNG\r\n\x1a\n", (".png",)),
    _Kind("a TIFF image", b"II*\0", (".tif", ".tiff")),
    _Kind("a TIFF image", b"MM\0*", (".tif", ".tiff")),
    _Kind("a TIFF image", b"II+\0", (".tif", ".tiff")),
    _Kind("an NRRD file", b"NRRD0", (".nrrd", ".nhdr")),
    _Kind("a gzip file", b"\x1f\x8b", (".nii.gz", ".gz")),
    _Kind("a NIfTI file that is not compressed", b"n+1\0", (".nii",), 344),
    _Kind("an MRC file", b"MAP ", (".mrc", ".mrcs", ".rec", ".st", ".ali", ".map"), 208),
    _Kind("a DICOM file", b"DICM", (), 128),
    _Kind("a JPEG image", b"\xff\xd8\xff", ()),
    _Kind("a ZIP archive", b"PK\x03\x04", ()),
    _Kind("a 7z archive", b"7z\xbc\xaf\x27\x1c", ()),
    _Kind("a PDF document", b"%PDF", ()),
)


def foreign_content(path: Path) -> Content | None:
    """What a file holds that no reader of its ending could read.

    Args:
        path: a file that its reader refused.

    Returns:
        None where it is no file, or begins as its ending says: it is damaged then.
    """
    head, name = _head(path), path.name.lower()
    if told := stand_in(head):
        return told
    kind = next((k for k in _KINDS if head[k.at :].startswith(k.mark)), None)
    if kind is None:
        return None if name.endswith(_METADATA) else _text(head)
    return None if kind.endings and name.endswith(kind.endings) else _other_kind(kind)


def foreign_chunk(path: Path) -> Content | None:
    """What lies in place of a chunk, whose own bytes may begin in any way."""
    return stand_in(_head(path))


def stand_in(head: bytes) -> Content | None:
    """What version control or a web server leaves in place of a file.

    Args:
        head: its first bytes.
    """
    return _placeholder(head) or _answer(head)


def missing_content(path: Path) -> Content:
    """Why a path leads to no file."""
    if not path.is_symlink():
        return Content("no such file or folder")
    target = path.readlink()
    if "annex/objects/" in target.as_posix():
        return _ANNEX
    return Content(f"a link to a file that does not exist ({target})")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _placeholder(head: bytes) -> Content | None:
    """What version control keeps in place of a large file."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return _LFS
    return _ANNEX if head.startswith(b"/annex/objects/") else None


def _answer(head: bytes) -> Content | None:
    """What a web server sends in place of a file."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _PAGE.match(text):
        what, inside = "a web page", _TITLE.search(text)
    elif _ERROR.match(text):
        what, inside = "a server's error message", _CODE.search(text)
    else:
        return None
    called = f" ({_shown(inside[1])})" if inside else ""
    return Content(
        f"{what}{called}, saved under this name",
        "download the file itself: the address leads to a page about it, or wants a login",
    )


def _other_kind(kind: _Kind) -> Content:
    remedy = "convert it, or unpack what is in it"
    if kind.endings:
        remedy = f"let its name end in {kind.endings[0]}"
    return Content(f"{kind.name} under another ending", remedy)


def _text(head: bytes) -> Content | None:
    try:
        text = getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if not text.strip() or not all(c.isprintable() or c.isspace() for c in text):
        return None
    return Content(f"text ({_shown(head[:60])!r}), not voxels", "fetch the file that was meant")


def _shown(part: bytes) -> str:
    return " ".join(part.decode("utf-8", "replace").split())
