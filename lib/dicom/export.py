"""EM volumes as DICOM series, in the form OHIF and MONAI Label's server need.

What a viewer needs, and how it is met here:

* EM in true millimetres (4e-6) leaves OHIF black: 1 nm is written as 1 mm, as in every other
  file that viewers open. The true size travels in a private element and in the record.
* A SEG that OHIF stores comes back flipped in z unless InstanceNumber runs against z.
* The server finds series by modality; its default filter is CT, and OHIF offers the MONAI
  Label mode for CT and MR only. CT is the default.
* OHIF takes its grey window from the file.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from lib.dicom.series import PRIVATE_CREATOR, PRIVATE_GROUP, RECORD_ELEMENT

MANUFACTURER = "Neuropil"
_SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
_DATE, _TIME = "20000101", "000000"  # of the pixels: constant, so that a repeated export is equal


class LazyVolume(Protocol):
    """An (X, Y, Z) array that is read by slicing."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Any) -> NDArray[Any]: ...


@dataclass(frozen=True)
class SeriesIdentity:
    """The identifiers a viewer or a server asks for."""

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]


def export_series(
    image: LazyVolume,
    folder: Path | str,
    *,
    item_id: str,
    voxel_size_nm: tuple[float, float, float],
    window: tuple[float, float],
    record: Mapping[str, Any] | None = None,
    modality: str = "CT",
) -> SeriesIdentity:
    """Write a volume as one DICOM file for each section.

    The identifiers follow from the content: the same volume exported twice is the same
    series, so a store holds it once; a changed volume is a new one.

    Args:
        image: (X, Y, Z) of uint8 or uint16; read section by section.
        folder: created; receives 0000.dcm, 0001.dcm, ...
        window: (low, high) grey values that the viewer shows from black to white.
        record: kept in a private element for the way back (the item's record as a dict).
        modality: CT and MR get their own storage class, any other secondary capture.

    Raises:
        ValueError: not (X, Y, Z), or neither uint8 nor uint16.
    """
    if len(image.shape) != 3 or image.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ValueError(
            f"DICOM export of {item_id}: found {image.dtype} of shape {tuple(image.shape)}, "
            "expected uint8 or uint16 (X, Y, Z); import the image first"
        )
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    note = json.dumps(dict(record or {}) | {"voxel_size_nm": list(voxel_size_nm), "id": item_id})
    seed = hashlib.blake2b(f"{image.shape} {image.dtype} {note}".encode(), digest_size=32)
    for k in range(image.shape[2]):
        seed.update(np.ascontiguousarray(image[:, :, k]).tobytes())
    digest = seed.hexdigest()
    header = _series_header(image, item_id, voxel_size_nm, window, modality, digest)
    files = []
    for k in range(image.shape[2]):
        section = _section(header, image[:, :, k], k, image.shape[2], voxel_size_nm[2], digest)
        block = section.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
        block.add_new(RECORD_ELEMENT, "UT", note)
        path = out / f"{k:04d}.dcm"
        section.save_as(path, write_like_original=False)
        files.append(path)
    return SeriesIdentity(str(header.StudyInstanceUID), str(header.SeriesInstanceUID), tuple(files))


def _series_header(
    image: LazyVolume,
    item_id: str,
    voxel_size_nm: tuple[float, float, float],
    window: tuple[float, float],
    modality: str,
    digest: str,
) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = _SOP_CLASSES.get(modality, SecondaryCaptureImageStorage)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = _DATE
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = _TIME
    ds.Modality, ds.Manufacturer, ds.AccessionNumber = modality, MANUFACTURER, ""
    ds.ReferringPhysicianName = ds.PatientBirthDate = ""
    ds.PatientName, ds.PatientID = f"EM^{item_id}"[:64], item_id[:64]
    ds.PatientSex, ds.StudyID, ds.SeriesNumber = "O", "1", 1
    size = " x ".join(f"{v:g}" for v in voxel_size_nm)
    ds.StudyDescription = item_id[:64]
    ds.SeriesDescription = f"EM, voxel {size} nm, shown as mm"[:64]
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", digest])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", digest])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", digest])
    ds.PositionReferenceIndicator, ds.PatientPosition = "", "HFS"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [_decimal(voxel_size_nm[1]), _decimal(voxel_size_nm[0])]
    ds.SliceThickness = ds.SpacingBetweenSlices = _decimal(voxel_size_nm[2])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Columns, ds.Rows = image.shape[0], image.shape[1]
    ds.BitsAllocated = 16  # a CT image has no 8-bit form
    ds.BitsStored = 8 if image.dtype == np.uint8 else 16
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    low, high = window
    ds.WindowCenter, ds.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 1.0))
    if modality == "CT":
        ds.KVP, ds.AcquisitionNumber = None, 1
    return ds


def _section(
    header: Dataset, pixels: NDArray[Any], k: int, depth: int, step: float, digest: str
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["section", digest, str(k)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", copy.deepcopy(header), file_meta=meta, preamble=b"\0" * 128)
    ds.is_little_endian, ds.is_implicit_VR = True, False
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.InstanceNumber = depth - k
    ds.ImagePositionPatient = [0, 0, _decimal(k * step)]
    ds.SliceLocation = _decimal(k * step)
    ds.PixelData = np.ascontiguousarray(pixels.T, dtype="<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.10g}"
