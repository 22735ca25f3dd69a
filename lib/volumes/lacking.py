"""What a source does not hold of a part that is to be read, in words for the user."""

from __future__ import annotations

from lib.volumes.boxes import Box, shift_box, show_box
from lib.volumes.errors import VolumeError
from lib.volumes.source import Source


def lacking(source: Source, box: Box, must: bool = True) -> list[str]:
    """Parts of a box that are not in the file, and that therefore read as its fill value.

    Args:
        box: counted from the source's first voxel.
        must: whether it is a fault if nothing of the box is there.

    Returns:
        A sentence, or none.

    Raises:
        VolumeError: nothing of the box is there.
    """
    there = source.stored(box)
    if there.found == there.total:
        return []
    shown = show_box(shift_box(box, source.info.origin))
    text = f"{there.found} of {there.total} {there.part} of the box {shown}"
    if there.found == 0 and must:
        raise VolumeError(
            source.info.where, text, "a part of the volume that was written",
            "choose another part, or fetch the volume again",
        )  # fmt: skip
    return [f"{source.info.where}: {text} are there; the others are read as its fill value"]
