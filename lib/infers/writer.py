"""Label maps as files that viewers read: NIfTI, NRRD and Slicer's .seg.nrrd.

The stock writer cannot write 64-bit labels and forgets the names and colours of segments.
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray

from lib.server.errors import refuse
from lib.volumes.boxes import Box, box_origin
from lib.volumes.opened import Affine

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
EXTENSIONS = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii")
DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
}


@dataclass(frozen=True)
class NamedSegment:
    """A segment of a .seg.nrrd file: its value in the map, name, colour and extent.

    Args:
        extent: first and last voxel along each axis, as Slicer stores it.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    extent: tuple[int, int, int, int, int, int]


def result_extension(request: dict[str, Any], default: str = ".nii.gz") -> str:
    """The file extension that a request wants.

    Raises:
        HTTPException: 400 for one that cannot be written.
    """
    wanted = str(request.get("result_extension") or default)
    if wanted not in EXTENSIONS:
        raise refuse(f"result_extension: expected one of {', '.join(EXTENSIONS)}, found {wanted}")
    return wanted


def result_dtype(request: dict[str, Any], highest: int) -> type[np.unsignedinteger[Any]]:
    """The type of the voxels: what the request names, else the smallest that holds the map.

    Raises:
        HTTPException: 400 for a name that is no unsigned type.
    """
    wanted = request.get("result_dtype")
    if wanted is None:
        name = "uint8" if highest < 2**8 else "uint16" if highest < 2**16 else "uint32"
        return DTYPES[name]
    if str(wanted) not in DTYPES:
        raise refuse(f"result_dtype: expected one of {', '.join(DTYPES)}, found {wanted!r}")
    return DTYPES[str(wanted)]


def cropped_affine(affine: Affine, box: Box) -> Affine:
    """The affine of a part of an image."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array(box_origin(box)) + affine[:3, 3]
    return moved


def write_label(
    labels: NDArray[Any],
    affine: Affine,
    extension: str,
    *,
    compress: bool = True,
    segments: Sequence[NamedSegment] = (),
) -> str:
    """Write a label map to a temporary file.

    Args:
        labels: (X, Y, Z) unsigned, 8 to 32 bits; wider types are narrowed to 32.
        affine: of the image it belongs to, RAS.
        extension: one of EXTENSIONS.
        segments: names and colours, for .seg.nrrd.

    Returns:
        The file's path; the caller removes it.
    """
    if labels.dtype.itemsize > 4 or labels.dtype.kind != "u":
        assert labels.size == 0 or (labels.min() >= 0 and labels.max() < 2**32), labels.dtype
        labels = labels.astype(np.uint32)
    handle, path = tempfile.mkstemp(suffix=extension, dir=_results_folder())
    os.close(handle)
    if extension.endswith(".nrrd"):
        header = _nrrd_header(affine, compress)
        if extension == ".seg.nrrd":
            header.update(_segment_header(segments, labels.shape))
        nrrd.write(path, labels, header, compression_level=1, index_order="F")
    else:
        image = nib.Nifti1Image(labels, affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
    return path


@functools.cache
def _results_folder() -> str:
    """A folder of this process's own, removed at its end.

    MONAI Label's client saves an answer under the name that the server's file has: in one
    temporary folder both would be one file, which the server removes.
    """
    folder = tempfile.TemporaryDirectory(prefix="neuropil-")
    atexit.register(folder.cleanup)
    return folder.name


def _nrrd_header(affine: Affine, compress: bool) -> OrderedDict[str, Any]:
    lps = LPS_RAS @ affine
    return OrderedDict(
        {
            "space": "left-posterior-superior",
            "space directions": lps[:3, :3].T,
            "kinds": ["domain", "domain", "domain"],
            "space origin": lps[:3, 3],
            "encoding": "gzip" if compress else "raw",
        }
    )


def _segment_header(segments: Sequence[NamedSegment], shape: tuple[int, ...]) -> dict[str, str]:
    """The fields by which Slicer knows the segments of a single-layer segmentation."""
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for i, segment in enumerate(segments):
        color = " ".join(f"{c / 255:.6f}" for c in segment.color)
        header |= {
            f"Segment{i}_ID": segment.name,
            f"Segment{i}_Name": segment.name,
            f"Segment{i}_NameAutoGenerated": "0",
            f"Segment{i}_Color": color,
            f"Segment{i}_ColorAutoGenerated": "0",
            f"Segment{i}_LabelValue": str(segment.value),
            f"Segment{i}_Layer": "0",
            f"Segment{i}_Extent": " ".join(str(v) for v in segment.extent),
            f"Segment{i}_Tags": "",
        }
    return header
