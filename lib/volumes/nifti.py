"""NIfTI files: reading lazily, and the header of the files that a study holds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError, damaged
from lib.volumes.lengths import StatedSize, stated_size
from lib.volumes.plain import PlainSource, even_offsets
from lib.volumes.source import Source, SourceInfo, check_affine

HEADER_ERRORS = (
    OSError, EOFError, ValueError, OverflowError, zlib.error,
    nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError,
)  # fmt: skip
LARGEST_NIFTI1 = 32767
UNIT_NM = {"nm": 1.0, "um": 1e3, "mm": 1e6}
VIEWER_UNITS = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "unknown")


class NiftiSource(PlainSource):
    """A NIfTI file with voxels as stored; .nii.gz is decoded up to the slice."""

    def __init__(
        self,
        info: SourceInfo,
        offset: int,
        stored: np.dtype[Any],
    ) -> None:
        path = Path(info.path)
        offsets = even_offsets(offset, info.shape, stored.itemsize)
        super().__init__(info, path, offsets, stored, packed=path.name.lower().endswith(".gz"))

    def memory_map(self) -> NDArray[Any] | None:
        """The voxels as a memory map, (X, Y, Z); None for a compressed file."""
        if self._packed:
            return None
        return np.memmap(self._data, self._stored, "r", self._offsets[0], self.shape, order="F")


class ScaledNiftiSource(Source):
    """A NIfTI file whose header scales the stored numbers; read through nibabel."""

    def __init__(self, info: SourceInfo, proxy: Any) -> None:
        super().__init__(info)
        self._proxy = proxy

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        rank = len(self._proxy.shape)
        index = (slice(a, b), slice(c, d), slice(e, f), *[0] * (rank - 3))[:rank]
        return np.asarray(self._proxy[index]).reshape(b - a, d - c, f - e)


def open_nifti(path: Path, spacing_unit: str = "nm") -> Source:
    """Open a NIfTI file.

    Args:
        spacing_unit: what one unit of the file's spacing is; "nm" is how this app and its
            viewers write nanometres (DESIGN.md, "Axes and units"). A spacing of 1, 1, 1
            then counts as not stated: it is what files without a spacing say.

    Raises:
        VolumeError: damaged, RGB, or with more than three axes.
    """
    try:
        image: Any = nib.load(path)
        header: Any = image.header
        shape = _spatial_shape(path, tuple(int(n) for n in header.get_data_shape()))
        stored = header.get_data_dtype()
        # nibabel takes the scaling out of the header and keeps it with the data.
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        affine = np.asarray(image.affine, np.float64)
        if int(header["sform_code"]) <= 0 and 1.0 in header["pixdim"][1:4]:
            _check_spacing(path, type(header))
    except VolumeError:
        raise
    except HEADER_ERRORS as error:
        raise damaged(str(path), error) from error
    if stored.fields is not None or stored.kind == "c":
        raise VolumeError(path, f"voxels of type {stored}", "one grey value a voxel")
    check_affine(str(path), affine)
    size = _voxel_size(header, affine, spacing_unit)
    scaled = (float(slope), float(intercept)) != (1.0, 0.0)
    dtype = np.dtype(np.float64) if scaled else stored.newbyteorder("=")
    info = SourceInfo(str(path), "", shape, dtype, size.nm, size_fault=size.fault)
    source: Source
    if scaled:
        source = ScaledNiftiSource(info, image.dataobj)
    else:
        source = NiftiSource(info, int(image.dataobj.offset), stored)
    source.affine = affine
    return source


def _voxel_size(header: Any, affine: NDArray[np.float64], spacing_unit: str) -> StatedSize:
    """Lengths of the affine's columns, which is what viewers show, in the header's unit."""
    lengths = [float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)]
    if len(header.get_data_shape()) == 2:
        lengths[2] = lengths[0]
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError as error:  # nibabel's table lacks the code
        unit = f"unit code {error}"
    return viewer_size(lengths, unit, spacing_unit)


def viewer_size(
    lengths: Sequence[float], units: Sequence[str] | str, spacing_unit: str
) -> StatedSize:
    """The voxel size of a file of the kind that viewers open.

    "mm" is how viewers' files carry `spacing_unit`, and so is no unit at all; every other
    unit means what it says. Where that unit is nm, 1, 1, 1 counts as not stated.
    """
    words = [units] * 3 if isinstance(units, str) else list(units)
    words = ["" if w.strip().lower() in VIEWER_UNITS else w for w in words]
    if spacing_unit == "nm" and not any(words) and np.allclose(lengths, 1.0, atol=1e-6):
        return StatedSize()
    return stated_size(lengths, words, UNIT_NM[spacing_unit])


def nifti_header(
    shape: Triple,
    dtype: Any,
    voxel_size_nm: tuple[float, float, float],
    affine: NDArray[np.float64] | None = None,
) -> bytes:
    """The bytes before the voxels of a .nii file, in which 1 nm is 1 millimetre.

    Args:
        shape: x, y, z; above 32767 the header is NIfTI-2.
        affine: of the image that a label belongs to; by default the voxel size alone.
    """
    kind: Any = nib.Nifti2Header if max(shape) > LARGEST_NIFTI1 else nib.Nifti1Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    if affine is None:
        affine = np.diag([*voxel_size_nm, 1.0])
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = len(bytes(header.binaryblock)) + 4
    header["magic"] = header.single_magic
    return bytes(header.binaryblock) + b"\0\0\0\0"


def _check_spacing(path: Path, kind: Any) -> None:
    """Refuse a spacing that is 0 along some axes only; nibabel would take it for 1.

    Raises:
        VolumeError: it is.
    """
    with nib.openers.ImageOpener(str(path)) as file:
        raw = kind.from_fileobj(file, check=False)
    spacing = [float(v) for v in raw["pixdim"][1 : 1 + min(3, int(raw["dim"][0]))]]
    if 0.0 in spacing and any(spacing) and int(raw["sform_code"]) <= 0:
        raise VolumeError(
            path, f"a spacing of {spacing}", "a length along each axis",
            "write the file again with its voxel size",
        )  # fmt: skip


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> Triple:
    """(X, Y, Z) of a 2D or 3D file, or one with further axes of length 1."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise VolumeError(
            path, f"a volume of shape {shape}", "two or three axes (x, y, z)",
            "split channels or time points into files of their own",
        )  # fmt: skip
    x, y, z = (*shape[:3], 1)[:3]
    return x, y, z
