"""What a container does not hold is never read as zeros without a word."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from import_cases import items, refusals, run
from volume_files import SIZED, chunked, hdf5, precomputed, volume

from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.source import Stored

CHUNKED = ["zarr2", "zarr3", "ome-zarr-0.4", "ome-zarr-0.5", "n5", "precomputed"]
METADATA = (".json", ".zarray", ".zattrs", ".zgroup")
WHOLE = ((0, 13), (0, 17), (0, 9))


def chunk_files(root: Path) -> list[Path]:
    files = [p for p in root.rglob("*") if p.is_file() and "s1" not in p.parts]
    return sorted(p for p in files if not p.name.endswith(METADATA) and p.name != "info")


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


@pytest.mark.parametrize("kind", CHUNKED)
def test_a_container_without_chunks_is_refused(tmp_path, refused, kind):
    root = Path(SIZED[kind](tmp_path, volume()))
    for path in chunk_files(root):
        path.unlink()
    err = refused(root)
    assert "0 of its " in err and " chunks" in err and str(root) in err


@pytest.mark.parametrize("kind", CHUNKED)
def test_chunks_under_other_names_are_named(tmp_path, refused, kind):
    root = Path(SIZED[kind](tmp_path, volume()))
    for path in chunk_files(root):
        path.rename(path.with_name(path.name + ".bak"))
    err = refused(root)
    assert "0 of its " in err and ".bak" in err


@pytest.mark.parametrize("kind", [k for k in CHUNKED if k not in ("zarr3", "ome-zarr-0.5")])
def test_some_missing_chunks_are_counted_and_told(tmp_path, capsys, kind):
    """Sparse containers are usual; what is not there is said, for the part that is imported."""
    root = Path(SIZED[kind](tmp_path, volume((16, 16, 8))))
    files = chunk_files(root)
    files[0].unlink()
    source = open_source(str(root))
    whole = source.stored(((0, 16), (0, 16), (0, 8)))
    assert whole.found == whole.total - 1 == len(files) - 1
    assert run("import", root, "--studies", tmp_path / "s") == 0
    err = capsys.readouterr().err
    assert f"warning: {source.info.where}: {whole.found} of {whole.total} chunks" in err
    missing = [b for b in _boxes() if source.stored(b) == Stored(0, 1)]
    assert len(missing) == 1
    (a, b), (c, d), (e, f) = missing[0]
    study = tmp_path / "t"
    crop = f"{a}:{b},{c}:{d},{e}:{f}"
    assert run("import", root, "--studies", study, "--crop", crop) == 1
    assert "0 of 1 chunks of the box " + crop in capsys.readouterr().err
    assert not list(study.glob("*.nii"))


def _boxes():
    """The chunks of the containers above: 8 x 8 x 4 voxels."""
    return [((x, x + 8), (y, y + 8), (z, z + 4)) for x in (0, 8) for y in (0, 8) for z in (0, 4)]


@pytest.mark.parametrize("separator", [".", "/"])
def test_zarr_chunks_are_found_where_their_names_are_not_stated(tmp_path, separator):
    data = volume()
    root = tmp_path / "v.zarr"
    chunked("zarr", root, data.T, {"chunks": [4, 8, 8], "dimension_separator": separator})
    meta = json.loads((root / ".zarray").read_text())
    del meta["dimension_separator"]
    (root / ".zarray").write_text(json.dumps(meta))
    assert (np.asarray(open_source(str(root))) == data).all()


PACKED = {
    ".gz": gzip.compress, ".br": imagecodecs.brotli_encode, ".zst": imagecodecs.zstd_encode,
    ".xz": lzma.compress, ".bz2": bz2.compress,
}  # fmt: skip


@pytest.mark.parametrize("suffix", list(PACKED))
@pytest.mark.parametrize("every", [1, 2])
def test_packed_precomputed_chunks_are_read(tmp_path, suffix, every):
    """As CloudVolume writes them; some or all."""
    data = volume(dtype=np.uint16)
    root = Path(precomputed(tmp_path / "pc", data, offset=(5, -3, 7)))
    for path in chunk_files(root)[::every]:
        path.with_name(path.name + suffix).write_bytes(PACKED[suffix](path.read_bytes()))
        path.unlink()
    source = open_source(str(root))
    assert (np.asarray(source) == data).all() and source.info.origin == (5, -3, 7)
    assert (source[5:11, 7:9, 3:6] == data[5:11, 7:9, 3:6]).all()
    chunk_files(root)[0].unlink()
    whole = source.stored(WHOLE)
    assert whole.found == whole.total - 1


def test_a_damaged_packed_chunk_is_named(tmp_path, refused):
    root = Path(precomputed(tmp_path / "pc", volume()))
    path = chunk_files(root)[0]
    path.with_name(path.name + ".gz").write_bytes(b"no gzip")
    path.unlink()
    assert f"chunk {path.name}.gz" in refused(root)


def virtual(folder: Path, names: list[str], data) -> Path:
    layout = h5py.VirtualLayout(data.T.shape, data.dtype)
    for z, name in enumerate(names):
        layout[z] = h5py.VirtualSource(name, "raw", data.T.shape[1:])
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_virtual_dataset("raw", layout, fillvalue=0)
    return folder / "v.h5"


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_virtual_datasets_need_their_sources(tmp_path, refused, capsys, gone):
    data = volume((6, 5, 3))
    names = [f"part{z}.h5" for z in range(3)]
    for z, name in enumerate(names):
        with h5py.File(tmp_path / name, "w") as file:
            file["raw"] = data[:, :, z].T
    path = virtual(tmp_path, names, data)
    for name in names[:gone]:
        (tmp_path / name).unlink()
    if gone == 0:
        assert (np.asarray(open_source(str(path))) == data).all()
    else:
        err = refused(path, "--voxel-size-nm", 4)
        assert f"{3 - gone} of 3 sources of a virtual dataset" in err and "part0.h5" in err


def test_a_virtual_source_without_its_dataset(tmp_path, refused):
    data = volume((6, 5, 1))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = data[:, :, 0].T
    path = virtual(tmp_path, ["a.h5"], data)
    assert "0 of 1 sources" in refused(path, "--voxel-size-nm", 4)


def test_external_files_of_hdf5(tmp_path, refused):
    data = volume((6, 5, 4))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        outside = [(str(tmp_path / "v.bin"), 0, data.nbytes)]
        file.create_dataset("raw", data.T.shape, "u1", external=outside)[...] = data.T
    assert (np.asarray(open_source(str(tmp_path / "v.h5"))) == data).all()
    (tmp_path / "v.bin").unlink()
    assert "0 of 1 external files" in refused(tmp_path / "v.h5", "--voxel-size-nm", 4)


@pytest.mark.parametrize("chunks", [None, (4, 4, 4)])
def test_hdf5_datasets_that_were_never_written(tmp_path, refused, chunks):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("raw", (9, 17, 13), "u1", chunks=chunks)
    err = refused(tmp_path / "v.h5", "--voxel-size-nm", 4)
    assert "0 of its 60 chunks" in err if chunks else "nothing was written" in err


def test_hdf5_chunks_that_were_not_written_are_counted(tmp_path, capsys):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        made = file.create_dataset("raw", (8, 8, 8), "u1", chunks=(4, 4, 4))
        made[:4, :4, :] = 7
    source = open_source(str(tmp_path / "v.h5"))
    assert source.stored(((0, 8), (0, 8), (0, 8))) == Stored(2, 8)
    assert source.stored(((0, 8), (0, 4), (0, 4))) == Stored(2, 2)
    source.close()
    words = ["--studies", tmp_path / "s", "--voxel-size-nm", 4]
    assert run("import", tmp_path / "v.h5", *words) == 0
    assert "2 of 8 chunks of the box 0:8,0:8,0:8 are there" in capsys.readouterr().err
    assert run("import", tmp_path / "v.h5", *words, "--id", "b", "--crop", ":,4:,4:") == 1
    assert "0 of 2 chunks" in capsys.readouterr().err


def test_an_image_of_one_value_is_told(tmp_path, capsys):
    path = hdf5(tmp_path / "v.h5", np.full((13, 17, 9), 7, np.uint8))
    assert run("import", path, "--studies", tmp_path / "s") == 0
    assert "every voxel of the image is 7" in capsys.readouterr().err
    assert len(items(tmp_path / "s")) == 1
    path = hdf5(tmp_path / "w.h5", volume())
    assert run("import", path, "--studies", tmp_path / "s") == 0
    assert "every voxel" not in capsys.readouterr().err


def test_labels_that_were_never_written_are_refused(tmp_path, refused):
    image = hdf5(tmp_path / "v.h5", volume())
    root = Path(SIZED["zarr2"](tmp_path, volume()))
    for path in chunk_files(root):
        path.unlink()
    assert "0 of its" in refused(image, "--instance", root)


def test_sparse_tiff_is_told(tmp_path, capsys):
    data = volume((64, 64, 1))
    tifffile.imwrite(tmp_path / "v.tif", data[:, :, 0].T, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "v.tif", mode="r+") as file:
        counts = list(file.pages[0].databytecounts)
        file.pages[0].tags["TileByteCounts"].overwrite([0, 0, *counts[2:]])
    source = open_source(str(tmp_path / "v.tif"))
    assert source.stored(((0, 64), (0, 64), (0, 1))) == Stored(14, 16, "strips or tiles")
    assert (source[...][32:] == data[32:]).all()
    source.close()


def test_in_use_is_not_damaged(tmp_path):
    path = hdf5(tmp_path / "v.h5", volume())
    import fcntl

    with Path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(VolumeError) as caught:
            open_source(path)
    assert "in use" in caught.value.found
    assert open_source(path).shape == (13, 17, 9)
