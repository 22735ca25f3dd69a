"""Pick the reader that fits a file or folder."""

from __future__ import annotations

from pathlib import Path

from lib.volumes.contents import foreign_content, missing_content
from lib.volumes.errors import VolumeError
from lib.volumes.nifti import open_nifti
from lib.volumes.readers.chunked import is_container, open_precomputed, open_zarr, read_json
from lib.volumes.readers.dm import DM, open_dm
from lib.volumes.readers.hdf5 import open_hdf5
from lib.volumes.readers.mrc import MRC, open_mrc
from lib.volumes.readers.nrrd_file import open_nrrd
from lib.volumes.readers.region import REGION, RegionSource, read_region
from lib.volumes.readers.remote import REMEDY, Folder, RemoteFolder, is_remote, split_address
from lib.volumes.readers.roles import Role
from lib.volumes.readers.section_names import Gaps
from lib.volumes.readers.sections import PNG, TIFF, PngSource, open_sections
from lib.volumes.readers.tiff import open_tiff
from lib.volumes.readers.webknossos import PROPERTIES, choose_array
from lib.volumes.source import Source

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
NRRD = (".nrrd", ".nhdr")
KNOWN = (
    "HDF5 (.h5, .hdf), TIFF (.tif, .tiff), PNG, NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), "
    "MRC (.mrc, .rec, .st), DM3, DM4, a Zarr, OME-Zarr, N5, WEBKNOSSOS or Precomputed folder, "
    "or a folder of PNG or TIFF sections"
)


def open_file(path: Path, spacing_unit: str = "nm", role: Role = "image") -> Source:
    """Open a single-volume file: NIfTI, NRRD, TIFF, MRC, DM3, DM4 or PNG.

    Raises:
        VolumeError: no such file, another kind of file, or a damaged one.
    """
    _check_file(path)
    try:
        return _open_by_ending(path, spacing_unit, role)
    except VolumeError:
        raise
    except Exception as error:  # whatever a file makes a package do, it is told as a bad file
        if content := foreign_content(path):
            raise VolumeError(path, content.found, remedy=content.remedy) from error
        raise VolumeError(path, f"cannot be read ({type(error).__name__}: {error})") from error


def _check_file(path: Path) -> None:
    """Refuse what is no file; to open a pipe would wait for ever.

    Raises:
        VolumeError: with what it is.
    """
    if not path.exists():
        missing = missing_content(path)
        raise VolumeError(path, missing.found, remedy=missing.remedy)
    if not path.is_file():
        raise VolumeError(path, "a folder, pipe or device", "a file")


def _open_by_ending(path: Path, spacing_unit: str, role: Role) -> Source:
    name = path.name.lower()
    if name.endswith(REGION):
        return open_region(path, spacing_unit)
    if name.endswith((".nii", ".nii.gz")):
        return open_nifti(path, spacing_unit)
    if name.endswith(NRRD):
        return open_nrrd(path, spacing_unit)
    if name.endswith(TIFF):
        return open_tiff(path, role=role)
    if name.endswith(PNG):
        return PngSource(path, role)
    if name.endswith(MRC):
        return open_mrc(path)
    if name.endswith(DM):
        return open_dm(path)
    raise VolumeError(path, "a kind of file that is not known", KNOWN)


def open_source(
    text: str, role: Role = "image", spacing_unit: str = "nm", gaps: Gaps = "refuse"
) -> Source:
    """Open what a user named.

    Args:
        text: PATH or PATH:DATASET (HDF5, Zarr, N5: path of a dataset; WEBKNOSSOS: a layer;
            Precomputed: a scale; TIFF: a series; a folder of sections: a pattern of names);
            s3://, gs://, http:// or https:// for chunked formats.
        role: what it will be used as; tells which dataset is meant when none is named, and
            whether colours can be indices.
        spacing_unit: of NIfTI and NRRD files.
        gaps: what becomes of missing numbers in a folder of sections.

    Raises:
        VolumeError: nothing there, a kind that is not known, no such dataset, or damaged.
    """
    if is_remote(text):
        return _open_folder(*split_address(text), role, gaps)
    path, dataset = split_dataset(text)
    if path.is_dir():
        return _open_folder(path, dataset, role, gaps)
    _check_file(path)
    name = path.name.lower()
    if name.endswith(HDF5):
        return open_hdf5(path, dataset, role)
    if name.endswith(TIFF):
        return open_tiff(path, dataset, role)
    if dataset:
        raise VolumeError(path, f"dataset {dataset!r} named", "a file that holds datasets")
    if name.endswith(NRRD):
        return open_nrrd(path, spacing_unit, by_name=True)
    return open_file(path, spacing_unit, role)


def open_region(path: Path, spacing_unit: str = "nm") -> RegionSource:
    """Open a box of a larger volume.

    Raises:
        VolumeError: the file says no region, or its volume cannot be opened.
    """
    region = read_region(path)
    volume = open_source(region.text, "image", spacing_unit)
    return RegionSource(volume, region.box, region.contrast, region.voxel_size_nm, str(path))


def split_dataset(text: str) -> tuple[Path, str]:
    """PATH and DATASET of "PATH:DATASET"; an existing path may hold colons."""
    if Path(text).exists() or ":" not in text:
        return Path(text), ""
    path, _, dataset = text.rpartition(":")
    return Path(path), dataset


def _open_folder(path: Folder, dataset: str, role: Role, gaps: Gaps) -> Source:
    if "scales" in (read_json(path / "info") or {}):
        return open_precomputed(path, dataset)
    if (path / PROPERTIES).exists():
        return open_zarr(path, choose_array(path, dataset, role, read_json), role)
    if is_container(path):
        return open_zarr(path, dataset, role)
    if isinstance(path, RemoteFolder):
        raise VolumeError(
            path, "no Zarr, N5 or Precomputed volume there", "a chunked format", REMEDY
        )
    sections = open_sections(path, dataset, role, gaps)
    if sections is None:
        named = f" named {dataset}" if dataset else ""
        raise VolumeError(path, f"a folder without sections{named} or a container in it", KNOWN)
    return sections
