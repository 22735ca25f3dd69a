"""Coarser copies beside a chunked volume: which are found, and where they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from scale_cases import SIZE, halved, n5_pyramid, ome_pyramid
from volume_files import chunked, hdf5

from lib.volumes.boxes import whole_box
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.scales import coarser_copies, unit_of

BASE = np.random.default_rng(0).integers(1, 255, (61, 48, 33), np.uint8)


def check(text: str, levels: list[np.ndarray]) -> None:
    source = open_source(text)
    copies = coarser_copies(source)
    assert [c.factor for c in copies] == [(2.0**n,) * 3 for n in range(1, len(levels))]
    assert [c.start for c in copies] == [(0.0, 0.0, 0.0)] * (len(levels) - 1)
    for copy, level in zip(copies, levels[1:], strict=True):
        assert (copy.source.read(whole_box(level.shape)) == level).all()
        assert copy.unit == tuple(min(16, n) for n in level.shape)


def test_levels_of_ome_zarr(tmp_path: Path) -> None:
    levels = ome_pyramid(tmp_path / "em.zarr", BASE, 3)
    check(str(tmp_path / "em.zarr"), levels)
    check(str(tmp_path / "em.zarr" / "0"), levels)
    assert len(coarser_copies(open_source(f"{tmp_path}/em.zarr:1"))) == 1


def test_arrays_of_one_group_in_n5(tmp_path: Path) -> None:
    check(f"{tmp_path}/em.n5:em/s0", n5_pyramid(tmp_path / "em.n5", BASE, 3))


def test_scales_of_precomputed_with_an_offset(tmp_path: Path) -> None:
    corner = np.array([8, 16, 4])
    for n, level in enumerate(halved(BASE, 3)):
        scale = {
            "size": level.shape, "resolution": [SIZE * 2**n] * 3, "chunk_size": [16, 16, 16],
            "encoding": "raw", "voxel_offset": (corner // 2**n).tolist(),
        }  # fmt: skip
        store = ts.open(
            {
                "driver": "neuroglancer_precomputed",
                "kvstore": {"driver": "file", "path": f"{tmp_path}/v/"},
                "multiscale_metadata": {
                    "type": "image", "data_type": "uint8", "num_channels": 1
                },
                "scale_metadata": scale,
            },
            create=True, open=True,
        ).result()  # fmt: skip
        store[..., 0].write(level).result()
    check(str(tmp_path / "v"), halved(BASE, 3))


def test_what_is_no_copy_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ome_pyramid(tmp_path / "em.zarr", BASE, 3)
    (tmp_path / "em.zarr" / "1" / "0").rename(tmp_path / "elsewhere")  # chunks of level 1
    shutil.rmtree(tmp_path / "em.zarr" / "1", ignore_errors=False)
    assert [c.factor for c in coarser_copies(open_source(str(tmp_path / "em.zarr")))] == [
        (4.0,) * 3
    ]
    assert "left out" in caplog.text
    n5_pyramid(tmp_path / "em.n5", BASE, 2)
    metadata = {"blockSize": [16, 16, 16], "compression": {"type": "gzip"}}
    chunked("n5", tmp_path / "em.n5" / "em" / "labels", BASE[::2].astype(np.uint32), metadata)
    chunked("n5", tmp_path / "em.n5" / "em" / "crop", BASE[:20], metadata)
    assert len(coarser_copies(open_source(f"{tmp_path}/em.n5:em/s0"))) == 1


def test_files_without_chunks_have_no_copies(tmp_path: Path) -> None:
    source = open_source(hdf5(tmp_path / "v.h5", BASE))
    assert coarser_copies(source) == [] and unit_of(source) == (61, 48, 16)
