"""NIfTI files: reading lazily, and the header of the files that a study holds."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError
from lib.volumes.source import Source, SourceInfo, damaged

HEADER_ERRORS = (
    OSError, EOFError, ValueError, zlib.error,
    nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError,
)  # fmt: skip
LARGEST_NIFTI1 = 32767
UNIT_NM = {"nm": 1.0, "um": 1e3, "mm": 1e6}


class NiftiSource(Source):
    """A NIfTI file. Uncompressed files are memory maps; .nii.gz is decoded up to the slice.

    Args:
        spacing_unit: what one unit of the file's spacing is; "nm" is how this app and its
            viewers write nanometres (DESIGN.md, "Axes and units").
    """

    def __init__(self, path: Path, spacing_unit: str = "nm") -> None:
        try:
            image: Any = nib.load(path)
            header: Any = image.header
            shape = tuple(int(n) for n in header.get_data_shape())
        except HEADER_ERRORS as error:
            raise damaged(str(path), error) from error
        stored = _spatial_shape(path, shape)
        if header.get_data_dtype().fields is not None:
            raise VolumeError(path, "an RGB volume", "one grey value a voxel")
        zooms = [float(v) for v in header.get_zooms()[:3]]
        zooms += [zooms[0]] * (3 - len(zooms))
        size = tuple(v * UNIT_NM[spacing_unit] for v in zooms)
        stated = None if tuple(zooms) == (1.0, 1.0, 1.0) and spacing_unit == "nm" else size
        slope, intercept = header.get_slope_inter()
        scaled = (slope or 1.0, intercept or 0.0) != (1.0, 0.0)
        dtype = np.dtype(np.float64) if scaled else header.get_data_dtype()
        super().__init__(SourceInfo(str(path), "", stored, dtype, stated))  # type: ignore[arg-type]
        self.affine: NDArray[np.float64] = np.asarray(image.affine, np.float64)
        self._scaled = scaled
        self._proxy = image.dataobj
        self._check_length(path)

    def _check_length(self, path: Path) -> None:
        """A plain file shorter than its header says would fail late, in the middle."""
        if path.suffix == ".gz":
            return
        needed = int(np.prod(self.shape)) * self._proxy.dtype.itemsize + self._proxy.offset
        found = path.stat().st_size
        if found < needed:
            raise VolumeError(
                path, f"truncated: {found} bytes", f"{needed}", "fetch or write the file again"
            )

    def memory_map(self) -> NDArray[Any] | None:
        """The voxels as a memory map, (X, Y, Z); None for compressed or scaled files."""
        if self._scaled:
            return None
        if not self.info.path.endswith(".nii"):
            return None
        array = np.asanyarray(self._proxy.get_unscaled())
        reshaped: NDArray[Any] = array.reshape(self.shape, order="F")
        return reshaped

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        rank = len(self._proxy.shape)
        index = (slice(a, b), slice(c, d), slice(e, f), *[0] * (rank - 3))[:rank]
        try:
            voxels = np.asarray(self._proxy[index])
        except zlib.error as error:
            raise damaged(self.info.where, error) from error
        return voxels.reshape(b - a, d - c, f - e)


def nifti_header(shape: Triple, dtype: Any, voxel_size_nm: tuple[float, float, float]) -> bytes:
    """The bytes before the voxels of a .nii file, in which 1 nm is 1 millimetre.

    Args:
        shape: x, y, z; above 32767 the header is NIfTI-2.
    """
    large = max(shape) > LARGEST_NIFTI1
    kind: Any = nib.Nifti2Header if large else nib.Nifti1Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms(voxel_size_nm)
    affine = np.diag([*voxel_size_nm, 1.0])
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    block = bytes(header.binaryblock)
    header["vox_offset"] = len(block) + 4
    header["magic"] = header.single_magic
    return bytes(header.binaryblock) + b"\0\0\0\0"


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> Triple:
    """(X, Y, Z) of a 2D or 3D file, or one with further axes of length 1."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise VolumeError(
            path, f"a volume of shape {shape}", "two or three axes (x, y, z)",
            "split channels or time points into files of their own",
        )  # fmt: skip
    x, y, z = (*shape[:3], 1)[:3]
    return x, y, z
