"""Small volumes in every format that import reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import nrrd
import numpy as np
import tensorstore as ts
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lib.labels.hierarchy import load_hierarchy

SIZE_NM = (4.0, 5.0, 40.0)
"""x, y, z: all different, so that a wrong order shows."""

Volume = NDArray[Any]


def volume(
    shape: tuple[int, int, int] = (13, 17, 9), dtype: Any = np.uint8, seed: int = 0
) -> Volume:
    """(X, Y, Z) of random values."""
    high = min(int(np.iinfo(dtype).max), 60000)
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def labels(seed: int = 0, shape: tuple[int, int, int] = (13, 17, 9)) -> tuple[Volume, Volume]:
    """Class sets and object ids at random, those of every kind."""
    hierarchy, rng = load_hierarchy(), np.random.default_rng(seed)
    some = [1, 1 << 3, hierarchy.unknown, hierarchy.set_named("organelle"), 0b110]
    ids = np.array([-1, 0, 1, 7, 300, 2**32 - 2])
    return np.array(some, np.int32)[rng.integers(0, 5, shape)], ids[rng.integers(0, 6, shape)]


def hdf5(path: Path, data: Volume, dataset: str = "volumes/raw", **attributes: Any) -> str:
    """CREMI-style; returns the path."""
    with h5py.File(path, "a") as file:
        made = file.create_dataset(
            dataset, data=data.T, chunks=tuple(min(4, n) for n in data.T.shape), compression="gzip"
        )
        made.attrs["resolution"] = np.array(SIZE_NM[::-1])
        for key, value in attributes.items():
            made.attrs[key] = value
    return str(path)


def _h5(folder: Path, data: Volume) -> str:
    return hdf5(folder / "v.h5", data)


def _imagej(folder: Path, data: Volume) -> str:
    tifffile.imwrite(
        folder / "v.tif", data.T, imagej=True, resolution=(1 / 0.004, 1 / 0.005),
        metadata={"axes": "ZYX", "spacing": 0.04, "unit": "um"},
    )  # fmt: skip
    return str(folder / "v.tif")


def ome(path: Path, data: Volume, **options: Any) -> str:
    """OME-TIFF with the size in two units."""
    tifffile.imwrite(
        path, data.T, ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm",
                  "PhysicalSizeY": 0.005, "PhysicalSizeZ": 0.04, "PhysicalSizeZUnit": "µm"},
        **options,
    )  # fmt: skip
    return str(path)


def _ome_tiled(folder: Path, data: Volume) -> str:
    return ome(folder / "v.ome.tif", data, tile=(16, 16), compression="zlib")


def _ome_strips(folder: Path, data: Volume) -> str:
    return ome(folder / "v.ome.tif", data, rowsperstrip=5, compression="zlib", predictor=True)


def _ome_plain_strips(folder: Path, data: Volume) -> str:
    return ome(folder / "v.ome.tif", data, rowsperstrip=5)


def _bigendian(folder: Path, data: Volume) -> str:
    return ome(folder / "v.ome.tif", data, byteorder=">", rowsperstrip=3)


def _sections(folder: Path, data: Volume) -> str:
    (folder / "s").mkdir()
    for z in range(data.shape[2]):
        page = data[:, :, z].T
        mode = Image.fromarray(np.ascontiguousarray(page))
        mode.save(folder / "s" / f"section_{z + 2}.png")
    return str(folder / "s")


def _tiff_sections(folder: Path, data: Volume) -> str:
    (folder / "s").mkdir()
    for z in range(data.shape[2]):
        tifffile.imwrite(folder / "s" / f"z{z + 2}.tif", data[:, :, z].T, compression="zlib")
    return str(folder / "s")


def nifti(path: Path, data: Volume, affine: Any = None) -> str:
    """NIfTI with SIZE_NM as its spacing."""
    affine = np.diag([*SIZE_NM, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return str(path)


def _nii(folder: Path, data: Volume) -> str:
    return nifti(folder / "v.nii", data)


def _nii_gz(folder: Path, data: Volume) -> str:
    return nifti(folder / "v.nii.gz", data)


def _nrrd_raw(folder: Path, data: Volume) -> str:
    header = {"space directions": np.diag(SIZE_NM), "space": "left-posterior-superior"}
    nrrd.write(str(folder / "v.nrrd"), data, {**header, "encoding": "raw"})
    return str(folder / "v.nrrd")


def _nrrd_gzip(folder: Path, data: Volume) -> str:
    nrrd.write(str(folder / "v.nrrd"), data, {"spacings": list(SIZE_NM), "encoding": "gzip"})
    return str(folder / "v.nrrd")


def _nhdr(folder: Path, data: Volume) -> str:
    header = {"spacings": [0.004, 0.005, 0.04], "units": ["um"] * 3, "encoding": "gzip"}
    nrrd.write(str(folder / "v.nhdr"), data, header)
    return str(folder / "v.nhdr")


def chunked(driver: str, folder: Path, data: Volume, metadata: dict[str, Any]) -> None:
    """Write an array as it is given."""
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
    store = ts.open(
        {**spec, "metadata": metadata}, create=True, dtype=data.dtype, shape=data.shape
    ).result()
    store.write(data).result()


def _zarr2(folder: Path, data: Volume) -> str:
    root = folder / "v.zarr"
    chunked("zarr", root / "volumes" / "raw", data.T, {"chunks": [4, 8, 8]})
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    attributes = {"resolution": list(SIZE_NM[::-1])}
    (root / "volumes" / "raw" / ".zattrs").write_text(json.dumps(attributes))
    return str(root)


def _zarr3(folder: Path, data: Volume) -> str:
    root = folder / "v.zarr"
    chunked("zarr3", root, data, {"dimension_names": ["x", "y", "z"]})
    meta = json.loads((root / "zarr.json").read_text())
    meta["attributes"] = {"voxel_size": list(SIZE_NM)}
    (root / "zarr.json").write_text(json.dumps(meta))
    return str(root)


def multiscales(version: str) -> dict[str, Any]:
    """OME-Zarr metadata with a channel axis and two levels."""
    scale = [1.0, 0.04, 0.005, 0.004]
    return {
        "multiscales": [
            {
                "version": version,
                "axes": [
                    {"name": "c", "type": "channel"},
                    *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"),
                ],
                "datasets": [
                    {
                        "path": "s0",
                        "coordinateTransformations": [{"type": "scale", "scale": scale}],
                    },
                    {
                        "path": "s1",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, 0.08, 0.01, 0.008]}
                        ],
                    },
                ],
            }
        ]
    }


def _ome_zarr04(folder: Path, data: Volume) -> str:
    root = folder / "v.zarr"
    chunked("zarr", root / "s0", data.T[None], {"chunks": [1, 4, 8, 8]})
    chunked("zarr", root / "s1", data.T[None, ::2, ::2, ::2], {"chunks": [1, 4, 8, 8]})
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    (root / ".zattrs").write_text(json.dumps(multiscales("0.4")))
    return str(root)


def _ome_zarr05(folder: Path, data: Volume) -> str:
    root = folder / "v.ome.zarr"
    chunked("zarr3", root / "s0", data.T[None], {})
    chunked("zarr3", root / "s1", data.T[None, ::2, ::2, ::2], {})
    attributes = {"ome": {"version": "0.5", **multiscales("0.5")}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (root / "zarr.json").write_text(json.dumps(group))
    return str(root)


def _n5(folder: Path, data: Volume) -> str:
    root = folder / "v.n5"
    chunked("n5", root / "volumes" / "raw", data, {"blockSize": [8, 8, 4]})
    (root / "attributes.json").write_text('{"n5": "2.0.0"}')
    path = root / "volumes" / "raw" / "attributes.json"
    attributes = json.loads(path.read_text())
    attributes["pixelResolution"] = {"unit": "um", "dimensions": [0.004, 0.005, 0.04]}
    path.write_text(json.dumps(attributes))
    return str(root)


def precomputed(
    folder: Path, data: Volume, kind: str = "image", offset: tuple[int, int, int] = (0, 0, 0)
) -> str:
    """Precomputed with one scale."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "multiscale_metadata": {"type": kind, "data_type": data.dtype.name, "num_channels": 1},
        "scale_metadata": {
            "size": list(data.shape), "encoding": "raw", "chunk_size": [8, 8, 4],
            "resolution": list(SIZE_NM), "voxel_offset": list(offset),
        },
    }  # fmt: skip
    ts.open(spec, create=True).result()[..., 0].write(data).result()
    return str(folder)


def _precomputed(folder: Path, data: Volume) -> str:
    return precomputed(folder / "pc", data)


SIZED: dict[str, Callable[[Path, Volume], str]] = {
    "hdf5": _h5, "imagej": _imagej, "ome-tiled": _ome_tiled, "ome-strips": _ome_strips,
    "ome-plain-strips": _ome_plain_strips, "ome-bigendian": _bigendian, "nii": _nii,
    "nii.gz": _nii_gz, "nrrd-raw": _nrrd_raw, "nrrd-gzip": _nrrd_gzip, "nhdr": _nhdr,
    "zarr2": _zarr2, "zarr3": _zarr3, "ome-zarr-0.4": _ome_zarr04, "ome-zarr-0.5": _ome_zarr05,
    "n5": _n5, "precomputed": _precomputed,
}  # fmt: skip
"""Formats that hold a voxel size."""

UNSIZED: dict[str, Callable[[Path, Volume], str]] = {
    "png-folder": _sections, "tiff-folder": _tiff_sections,
}  # fmt: skip
"""Formats that hold none."""
