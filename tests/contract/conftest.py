"""What the contract tests share: MONAI Label's own client and small helpers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray

from tests.conftest import Server

SLICER: dict[str, Any] = {"result_extension": ".nrrd", "result_dtype": "uint8"}
"""What 3D Slicer adds to every inference request."""

OHIF: dict[str, Any] = {**SLICER, "result_compress": False, "restore_label_idx": False}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for the server to start."""
    for item in items:
        if "contract" in item.path.parts and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def client(server: Server, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def voxels(path: Path | str) -> NDArray[Any]:
    """(X, Y, Z) of a NIfTI file, as stored."""
    image: Any = nib.load(path)
    return np.asanyarray(image.dataobj)


def write_nifti(path: Path, values: NDArray[Any], like: Path) -> Path:
    """A label map on another image's grid."""
    reference: Any = nib.load(like)
    nib.save(nib.Nifti1Image(values, reference.affine), path)
    return path
