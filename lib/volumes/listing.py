"""Which files of a study folder are images, and why the others are not.

One rule for everything that lists a study: the server's index, the strategies, training and
the commands see the same items. A file that cannot be one is named with its reason; it never
stands in the way of the others.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lib.volumes.contents import missing_content

IMAGE_SUFFIXES = (".region.json", ".nii.gz", ".nii", ".nrrd", ".tiff", ".tif", ".png")
"""Endings of images, in any case; where two files have one id, the earlier ending holds."""

MOST_ID_BYTES = 180
"""File systems allow 255 bytes; labels, records and temporary files add to the name."""

RULE = (
    f"at most {MOST_ID_BYTES} bytes of text without '/', '\\' or control characters, "
    "not starting with '.', no space at either end"
)
_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Skipped:
    """A file that is no item though it looks like an image.

    Args:
        name: of the file, printable.
        reason: in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The images of a study folder.

    Args:
        images: id -> file, sorted by id.
        skipped: files that are left out.
    """

    images: dict[str, Path]
    skipped: list[Skipped]


def id_fault(item_id: str) -> str:
    """What is wrong with an id; "" for a good one."""
    if not item_id:
        return "it is empty"
    if found := _FORBIDDEN.search(item_id):
        return f"it holds {found[0]!r}"
    if len(item_id.encode()) > MOST_ID_BYTES:
        return f"it takes {len(item_id.encode())} bytes"
    if item_id.startswith("."):
        return "it starts with '.'"
    if item_id != item_id.strip():
        return "a space stands at its end"
    if item_id.lower().endswith(".seg"):
        return "it ends in '.seg', as segmentations do"
    return ""


def split_name(name: str) -> tuple[str, str]:
    """Id and ending of an image's file name, the ending as it is written.

    Returns:
        (name, "") for a name that has no ending of an image.
    """
    lower = name.lower()
    for suffix in IMAGE_SUFFIXES:
        if lower.endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""


def list_images(root: Path, follow_links: bool = True) -> Listing:
    """Look through a study folder.

    Args:
        follow_links: whether links that lead out of the folder are items.
    """
    found: dict[str, list[str]] = {}
    skipped: list[Skipped] = []
    try:
        with os.scandir(root) as entries:
            candidates = [e for e in entries if not e.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        candidates = []
    for entry in candidates:
        item_id, suffix = split_name(entry.name)
        if not suffix or item_id.lower().endswith(".seg"):
            continue
        reason = _fault(entry, item_id, follow_links)
        if reason:
            skipped.append(Skipped(printable(entry.name), reason))
        else:
            found.setdefault(item_id, []).append(entry.name)
    images = {}
    for item_id, names in sorted(found.items()):
        first, *others = sorted(names, key=_rank)
        images[item_id] = root / first
        skipped += [
            Skipped(n, f"{first} has the same id, {item_id!r}; rename one of them") for n in others
        ]
    return Listing(images, sorted(skipped, key=lambda s: s.name))


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path, with all links followed, lies outside a folder.

    Links in a circle lead nowhere, which `Path.resolve` answers with an error.
    """
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def printable(name: str) -> str:
    """A file name as text that can be sent: bytes that are no text are shown as such."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _fault(entry: os.DirEntry[str], item_id: str, follow_links: bool) -> str:
    if fault := id_fault(item_id):
        return f"its name cannot be an id: {fault}; expected {RULE}"
    if entry.is_symlink():
        if not Path(entry.path).exists():
            return missing_content(Path(entry.path)).told
        if not follow_links and leads_out(Path(entry.path), Path(entry.path).parent):
            return (
                "a link out of the study, which is not followed; copy the file, or "
                "set server.follow_links"
            )
    return "" if entry.is_file() else "not a file"


def _rank(name: str) -> tuple[int, str]:
    return IMAGE_SUFFIXES.index(split_name(name)[1].lower()), name
