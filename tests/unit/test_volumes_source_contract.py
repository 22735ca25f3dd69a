"""The formats that import reads, each held to the contract of all readers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from dm_files import write_dm
from source_contract import SourceContract
from volume_files import SIZE_NM, SIZED, UNSIZED, chunked, precomputed


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


class TestMrcWithTurnedAxes(SourceContract):
    dtypes = (np.uint16, np.int16)

    def write(self, folder: Path, data: Any) -> str:
        with mrcfile.new(folder / "v.mrc") as file:
            file.set_data(np.ascontiguousarray(data))  # columns run along z
            header = file.header
            header.mapc, header.mapr, header.maps = 3, 2, 1
            header.mx, header.my, header.mz = data.shape
            header.cella = tuple(10 * n * s for n, s in zip(data.shape, SIZE_NM, strict=True))
        return str(folder / "v.mrc")


class TestDm3(SourceContract):
    def write(self, folder: Path, data: Any) -> str:
        write_dm(folder / "v.dm3", [(data, SIZE_NM, ("nm", "nm", "nm"))])
        return str(folder / "v.dm3")


class TestDm4(SourceContract):
    def write(self, folder: Path, data: Any) -> str:
        write_dm(folder / "v.dm4", [(data, (0.004, 0.005, 0.04), ("um",) * 3)], thumbnail=False)
        return str(folder / "v.dm4")


class TestPackedPrecomputed(SourceContract):
    def write(self, folder: Path, data: Any) -> str:
        root = Path(precomputed(folder / "pc", data))
        for path in [p for p in root.rglob("*-*") if p.is_file()]:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        return str(root)


class TestWebknossos(SourceContract):
    def write(self, folder: Path, data: Any) -> str:
        x, y, z = data.shape
        padded = np.pad(data[None], ((0, 0), *[(2, 3)] * 3))
        chunked("zarr3", folder / "wk" / "color" / "1", padded, {})
        mag = {"mag": [1, 1, 1], "path": "./color/1", "axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}
        box = {"topLeft": [2, 2, 2], "width": x, "height": y, "depth": z}
        layer = {"name": "color", "category": "color", "dataFormat": "zarr3", "boundingBox": box,
                 "mags": [mag]}  # fmt: skip
        scale = {"factor": list(SIZE_NM), "unit": "nanometer"}
        properties = json.dumps({"scale": scale, "dataLayers": [layer]})
        (folder / "wk" / "datasource-properties.json").write_text(properties)
        return str(folder / "wk")


class TestN5Pyramid(SourceContract):
    """Levels s0, s1, ... whose group holds what they share, as n5-viewer writes them."""

    def write(self, folder: Path, data: Any) -> str:
        root = folder / "v.n5"
        chunked("n5", root / "raw" / "s0", data, {"blockSize": [8, 8, 4]})
        chunked("n5", root / "raw" / "s1", data[::2, ::2, ::2], {"blockSize": [8, 8, 4]})
        shared = {"pixelResolution": {"unit": "um", "dimensions": [s / 1e3 for s in SIZE_NM]}}
        (root / "attributes.json").write_text(json.dumps({"n5": "2.5.0"}))
        (root / "raw" / "attributes.json").write_text(json.dumps(shared))
        return str(root)


class TestBioformats2raw(SourceContract):
    """A container whose image lies in the group "0"."""

    def write(self, folder: Path, data: Any) -> str:
        made = Path(SIZED["ome-zarr-0.4"](folder, data))
        root = folder / "container.zarr"
        root.mkdir()
        made.rename(root / "0")
        (root / ".zgroup").write_text('{"zarr_format": 2}')
        (root / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
        return str(root)
