"""Volumes zoomed out in Neuroglancer: what is read, and that it lies where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from neuroglancer.downsample import downsample_with_averaging
from neuroglancer.downsample_scales import compute_near_isotropic_downsampling_scales
from scale_cases import ome_pyramid

from lib.view.neuroglancer.pyramid import MOST_READ, Level, zoomed
from lib.view.neuroglancer.volumes import Volume, array_reading, image_reading
from lib.volumes.boxes import Box, Triple, box_shape, box_slices, whole_box
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource
from lib.volumes.source import Source

CHUNK = 64


def requests_of(shape: Triple, factor: Triple, size: int = 64) -> list[Box]:
    """Boxes of the result: the first, one inside, the last."""
    ends = [-(-n // f) for n, f in zip(shape, factor, strict=True)]
    found = []
    for share in (0.0, 0.4, 1.0):
        spans = []
        for end in ends:
            low = int(share * (end - 1)) // size * size
            spans.append((low, min(end, low + size)))
        found.append((spans[0], spans[1], spans[2]))
    return found


def decoded(box: Box, unit: Triple) -> int:
    """Voxels of the chunks that a box touches."""
    touched = [-(-b // u) - a // u for (a, b), u in zip(box, unit, strict=True)]
    return int(np.prod([n * u for n, u in zip(touched, unit, strict=True)]))


def test_intensities_are_averaged_and_ids_are_ids() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 256, (37, 20, 9), np.uint8)
    image = Level(voxels.shape, lambda box: voxels[box_slices(box)])
    found = zoomed([image], whole_box((10, 5, 5)), (4, 4, 2), labels=False)
    expected = downsample_with_averaging(voxels.astype(np.float32), (4, 4, 2))
    assert np.allclose(found, expected, atol=1e-3)
    ids = zoomed([image], whole_box((10, 5, 5)), (4, 4, 2), labels=True)
    assert ids.dtype == np.uint8
    for at in np.ndindex(ids.shape):
        block = voxels[tuple(slice(f * i, f * i + f) for i, f in zip(at, (4, 4, 2), strict=True))]
        assert ids[at] in block


@pytest.mark.parametrize("size_nm", [(8.0, 8.0, 8.0), (4.0, 4.0, 40.0)])
def test_zoomed_out_no_request_reads_more_than_the_bound(size_nm: Any) -> None:
    """A hundred gigavoxels without coarser copies: each voxel tells where it lies."""
    shape, unit = (4700, 4600, 4650), (CHUNK, CHUNK, CHUNK)
    read: list[int] = []

    def along_x(box: Box) -> np.ndarray:
        read.append(decoded(box, unit))
        x = np.arange(*box[0], dtype=np.float32).reshape(-1, 1, 1)
        return np.broadcast_to(x, box_shape(box))

    level = Level(shape, along_x, unit)
    scales = compute_near_isotropic_downsampling_scales(
        np.array(shape), np.array(size_nm), [0, 1, 2], max_downsampling=np.inf
    )
    assert max(scales[-1]) >= 32
    for scale in scales[1:]:
        factor: Triple = tuple(int(f) for f in scale)
        for box in requests_of(shape, factor):
            read.clear()
            found = zoomed([level], box, factor, labels=False)
            assert 0 < sum(read) <= MOST_READ
            assert found.shape == box_shape(box)
            true = (np.arange(*box[0]) + 0.5) * factor[0]
            wrong = np.abs(found - true.reshape(-1, 1, 1)).max()
            assert wrong <= factor[0] * 64 / 4 + CHUNK, (factor, box)
    read.clear()
    exact = zoomed([level], whole_box((64, 64, 64)), (4, 4, 4), labels=False)
    assert np.abs(exact[:, 0, 0] - (4 * np.arange(64) + 1.5)).max() < 1e-3, "sections go first"


def test_what_little_is_stored_is_seen_from_afar(tmp_path: Path) -> None:
    store = ts.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(tmp_path / "v.zarr")},
            "metadata": {
                "shape": [4096] * 3, "data_type": "uint8",
                "chunk_grid": {
                    "name": "regular", "configuration": {"chunk_shape": [CHUNK] * 3}
                },
            },
        },
        create=True,
    ).result()  # fmt: skip
    store[2048:2112, 1024:1088, 3008:3072] = 200
    source = open_source(str(tmp_path / "v.zarr"))
    whole = RegionSource(source, whole_box(source.shape), (0.0, 255.0))
    reading = image_reading(whole)
    for factor in (4, 8, 16, 32):
        at = [int(v / factor) // 64 * 64 for v in (3040, 1056, 2080)]
        box: Box = tuple((a, a + 64) for a in at)
        found = reading.zoomed(box, (factor,) * 3, labels=False)
        assert found.max() == 200 and found.mean() < 200, factor


def test_a_chunk_larger_than_the_bound_is_read_once() -> None:
    read: list[Box] = []

    def one(box: Box) -> np.ndarray:
        read.append(box)
        return np.ones(box_shape(box), np.uint8)

    level = Level((1024, 1024, 1024), one, (512, 512, 512))
    assert (zoomed([level], whole_box((64, 64, 64)), (16, 16, 16), labels=True) == 1).all()
    assert len(read) == 1 and decoded(read[0], level.unit) == 512**3


def test_the_coarsest_copy_that_is_fine_enough_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = np.random.default_rng(1).integers(0, 256, (64, 48, 32), np.uint8)
    coarse = ome_pyramid(tmp_path / "em.zarr", base, 3)
    source = open_source(str(tmp_path / "em.zarr"))
    read: list[str] = []
    plain = Source.read

    def noted(self: Source, box: Box) -> Any:
        read.append(self.info.dataset)
        return plain(self, box)

    monkeypatch.setattr(Source, "read", noted)
    whole = RegionSource(source, whole_box(source.shape), (0.0, 255.0))
    volume = Volume(image_reading(whole), (8.0, 8.0, 8.0), labels=False)
    assert volume.info()["maxDownsampling"] is None, "the client asks for any scale"
    for factor, level in ((2, "1"), (4, "2"), (8, "2")):
        read.clear()
        shape = tuple(n // factor for n in base.shape)
        data, _ = volume.get_encoded_subvolume("raw", [0, 0, 0], shape, ",".join([str(factor)] * 3))
        assert set(read) == {level}
        found = np.frombuffer(data, np.uint8).reshape(shape)
        known = coarse[int(level)]
        if known.shape == shape:
            assert (found == known).all()
    part = RegionSource(source, ((16, 64), (8, 40), (4, 32)), (0.0, 255.0))
    volume = Volume(image_reading(part), (8.0, 8.0, 8.0), labels=False)
    data, _ = volume.get_encoded_subvolume("raw", [1, 2, 3], [9, 8, 7], "4,4,4")
    found = np.frombuffer(data, np.uint8).reshape(8, 6, 4)
    assert (found == coarse[2][5:13, 4:10, 4:8]).all()


def test_what_the_client_never_asks_is_refused() -> None:
    volume = Volume(array_reading(np.zeros((9, 9, 9), np.uint8)), (8.0, 8.0, 8.0), labels=True)
    data, _ = volume.get_encoded_subvolume("raw", [0, 0, 0], [5, 5, 5], "2,2,2")
    assert len(data) == 125
    for end, factor in (([6, 5, 5], "2,2,2"), ([5, 5, 5], "0,2,2"), ([0, 5, 5], "2,2,2")):
        with pytest.raises(ValueError):
            volume.get_encoded_subvolume("raw", [0, 0, 0], end, factor)
