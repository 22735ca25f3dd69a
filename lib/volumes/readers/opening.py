"""Pick the reader that fits a file or folder."""

from __future__ import annotations

from pathlib import Path

from lib.volumes.errors import VolumeError
from lib.volumes.nifti import open_nifti
from lib.volumes.readers.chunked import is_container, open_precomputed, open_zarr, read_json
from lib.volumes.readers.hdf5 import open_hdf5
from lib.volumes.readers.nrrd_file import open_nrrd
from lib.volumes.readers.remote import REMEDY, Folder, RemoteFolder, is_remote, split_address
from lib.volumes.readers.roles import Role
from lib.volumes.readers.sections import PNG, TIFF, PngSource, SectionsSource, section_files
from lib.volumes.readers.tiff import open_tiff
from lib.volumes.source import Source

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
KNOWN = (
    "HDF5 (.h5, .hdf), TIFF (.tif, .tiff), PNG, NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), "
    "a Zarr, OME-Zarr, N5 or Precomputed folder, or a folder of PNG or TIFF sections"
)


def open_file(path: Path, spacing_unit: str = "nm") -> Source:
    """Open a single-volume file: NIfTI, NRRD, TIFF or PNG.

    Raises:
        VolumeError: no such file, another kind of file, or a damaged one.
    """
    if not path.exists():
        raise VolumeError(path, "no such file or folder")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return open_nifti(path, spacing_unit)
    if name.endswith((".nrrd", ".nhdr")):
        return open_nrrd(path, spacing_unit)
    if name.endswith(TIFF):
        return open_tiff(path)
    if name.endswith(PNG):
        return PngSource(path)
    raise VolumeError(path, "a kind of file that is not known", KNOWN)


def open_source(text: str, role: Role = "image", spacing_unit: str = "nm") -> Source:
    """Open what a user named.

    Args:
        text: PATH or PATH:DATASET (HDF5, Zarr, N5: path of a dataset; Precomputed: a scale);
            s3://, gs://, http:// or https:// for chunked formats.
        role: what it will be used as; tells which dataset is meant when none is named.
        spacing_unit: of NIfTI and NRRD files.

    Raises:
        VolumeError: nothing there, a kind that is not known, no such dataset, or damaged.
    """
    if is_remote(text):
        return _open_folder(*split_address(text), role)
    path, dataset = split_dataset(text)
    if not path.exists():
        raise VolumeError(path, "no such file or folder")
    if path.is_dir():
        return _open_folder(path, dataset, role)
    if path.name.lower().endswith(HDF5):
        return open_hdf5(path, dataset, role)
    if dataset:
        raise VolumeError(path, f"dataset {dataset!r} named", "a file that holds datasets")
    return open_file(path, spacing_unit)


def split_dataset(text: str) -> tuple[Path, str]:
    """PATH and DATASET of "PATH:DATASET"; an existing path may hold colons."""
    if Path(text).exists() or ":" not in text:
        return Path(text), ""
    path, _, dataset = text.rpartition(":")
    return Path(path), dataset


def _open_folder(path: Folder, dataset: str, role: Role) -> Source:
    if "scales" in (read_json(path / "info") or {}):
        return open_precomputed(path, dataset)
    if is_container(path):
        return open_zarr(path, dataset, role)
    if isinstance(path, RemoteFolder):
        raise VolumeError(
            path, "no Zarr, N5 or Precomputed volume there", "a chunked format", REMEDY
        )
    files = section_files(path)
    if not files:
        raise VolumeError(path, "a folder without sections or a container in it", KNOWN)
    return SectionsSource(path, files)
