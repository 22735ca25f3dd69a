"""Volumes with coarser copies beside them, in every format that keeps such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from volume_files import chunked

Volume = NDArray[Any]
SIZE = 8.0
"""nm, of the finest."""


def halved(data: Volume, count: int) -> list[Volume]:
    """A volume and coarser copies, each voxel the first of eight."""
    return [data[:: 2**n, :: 2**n, :: 2**n] for n in range(count)]


def ome_pyramid(folder: Path, data: Volume, count: int) -> list[Volume]:
    """OME-Zarr 0.4 with the levels 0, 1, ..., centres of voxels stated; the levels."""
    levels = halved(data, count)
    listed = []
    for n, level in enumerate(levels):
        metadata = {"chunks": [16, 16, 16], "dimension_separator": "/"}
        chunked("zarr", folder / str(n), level.T, metadata)
        scale, shift = [SIZE * 2**n] * 3, [SIZE * (2**n - 1) / 2] * 3
        moved = [
            {"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}
        ]  # fmt: skip
        listed.append({"path": str(n), "coordinateTransformations": moved})
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": listed}
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    return levels


def n5_pyramid(folder: Path, data: Volume, count: int) -> list[Volume]:
    """N5 with s0, s1, ... in one group, as n5-ij and COSEM write it; the levels."""
    levels = halved(data, count)
    for n, level in enumerate(levels):
        metadata = {"blockSize": [16, 16, 16], "compression": {"type": "gzip"}}
        chunked("n5", folder / "em" / f"s{n}", level, metadata)
        file = folder / "em" / f"s{n}" / "attributes.json"
        told = {"pixelResolution": {"unit": "nm", "dimensions": [SIZE] * 3}}
        told["downsamplingFactors"] = [2**n] * 3  # type: ignore[assignment]
        file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    (folder / "attributes.json").write_text(json.dumps({"n5": "2.0.0"}))
    return levels
