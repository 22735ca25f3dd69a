"""The formats that import reads, each held to the contract of all readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from source_contract import SourceContract
from volume_files import SIZE_NM, SIZED, UNSIZED


class TestHdf5(SourceContract):
    write = staticmethod(SIZED["hdf5"])


class TestImageJ(SourceContract):
    write = staticmethod(SIZED["imagej"])


class TestOmeTiffInTiles(SourceContract):
    write = staticmethod(SIZED["ome-tiled"])


class TestOmeTiffInStrips(SourceContract):
    write = staticmethod(SIZED["ome-strips"])


class TestOmeTiffInPlainStrips(SourceContract):
    write = staticmethod(SIZED["ome-plain-strips"])


class TestBigEndianTiff(SourceContract):
    write = staticmethod(SIZED["ome-bigendian"])


class TestNifti(SourceContract):
    write = staticmethod(SIZED["nii"])


class TestCompressedNifti(SourceContract):
    write = staticmethod(SIZED["nii.gz"])


class TestRawNrrd(SourceContract):
    write = staticmethod(SIZED["nrrd-raw"])


class TestCompressedNrrd(SourceContract):
    write = staticmethod(SIZED["nrrd-gzip"])


class TestDetachedNrrd(SourceContract):
    write = staticmethod(SIZED["nhdr"])


class TestZarr2(SourceContract):
    write = staticmethod(SIZED["zarr2"])


class TestZarr3(SourceContract):
    write = staticmethod(SIZED["zarr3"])


class TestOmeZarr04(SourceContract):
    write = staticmethod(SIZED["ome-zarr-0.4"])


class TestOmeZarr05(SourceContract):
    write = staticmethod(SIZED["ome-zarr-0.5"])


class TestN5(SourceContract):
    write = staticmethod(SIZED["n5"])


class TestPrecomputed(SourceContract):
    write = staticmethod(SIZED["precomputed"])


class TestPngSections(SourceContract):
    sized = False
    write = staticmethod(UNSIZED["png-folder"])


class TestTiffSections(SourceContract):
    sized = False
    write = staticmethod(UNSIZED["tiff-folder"])


class TestMrc(SourceContract):
    dtypes = (np.uint16, np.int16)

    def write(self, folder: Path, data: Any) -> str:
        with mrcfile.new(folder / "v.mrc") as file:
            file.set_data(np.ascontiguousarray(data.T))
            file.header.mz = data.shape[2]
            file.voxel_size = tuple(10 * s for s in SIZE_NM)
        return str(folder / "v.mrc")
