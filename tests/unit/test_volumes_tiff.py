"""TIFF: all pages of one stack or a refusal, as other programs show them; indexed colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from import_cases import PAGES, SIZE, STACK, items, refusals, run
from PIL import Image
from volume_files import hdf5

from lib.volumes.readers.opening import open_source


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("metadata", [None, {}])
def test_pages_that_were_appended_one_by_one_are_one_stack(tmp_path, compression, metadata):
    for z, page in enumerate(PAGES):
        tifffile.imwrite(
            tmp_path / "v.tif", page, append=z > 0, compression=compression, metadata=metadata
        )
    assert (np.asarray(open_source(str(tmp_path / "v.tif"))) == STACK).all()


def stack(path, pages, **options):
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, metadata=None, contiguous=False, **options)
    return path


@pytest.mark.parametrize("odd", [0, 4, 8])
@pytest.mark.parametrize("change", ["size", "type"])
def test_pages_of_other_sizes_or_types_are_named(tmp_path, refused, odd, change):
    pages = list(PAGES)
    pages[odd] = pages[odd][::2, ::2].copy() if change == "size" else pages[odd].astype(np.uint16)
    err = refused(stack(tmp_path / "v.tif", pages), *SIZE)
    assert "9 pages that are" in err or f"9 pages, of which page {odd} is" in err
    assert ("7 x 9" if change == "size" else "uint16") in err


def test_a_series_can_be_named(tmp_path, refused):
    path = stack(tmp_path / "v.tif", [PAGES[0][::2, ::2].copy(), *PAGES])
    assert (np.asarray(open_source(f"{path}:1")) == STACK).all()
    assert open_source(f"{path}:0").shape == (7, 9, 1)
    assert "no series '2'" in refused(f"{path}:2", *SIZE)


def test_marked_thumbnails_and_pyramids_are_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        writer.write(PAGES[0][::4, ::4].copy(), metadata=None, subfiletype=1)
        for page in PAGES:
            writer.write(page, metadata=None, contiguous=False, subifds=1)
            writer.write(page[::2, ::2].copy(), metadata=None, subfiletype=1)
    assert (np.asarray(open_source(str(tmp_path / "v.tif"))) == STACK).all()


def test_two_ome_images_are_not_one_stack(tmp_path, refused):
    with tifffile.TiffWriter(tmp_path / "v.ome.tif", ome=True) as writer:
        for _ in range(2):
            writer.write(STACK.T, metadata={"axes": "ZYX"})
    assert "18 pages that are 2 images" in refused(tmp_path / "v.ome.tif", *SIZE)


def test_pages_behind_imagej_metadata_are_not_lost(tmp_path, refused):
    """A stack of ImageJ to which another program appended a page."""
    tifffile.imwrite(tmp_path / "v.tif", STACK.T, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "one.tif", PAGES[0], metadata=None)
    _append(tmp_path / "v.tif", tmp_path / "one.tif")
    assert "10 pages, of which its metadata describes 9" in refused(tmp_path / "v.tif", *SIZE)


def _append(path: Path, other: Path) -> None:
    """Chain a single uncompressed page behind the last, by hand."""
    with tifffile.TiffFile(path) as file:
        order = file.byteorder
        last = file.pages[-1].offset
        count = len(file.pages[-1].tags)
    data = bytearray(path.read_bytes()) + b"\0" * (len(path.read_bytes()) % 2)
    with tifffile.TiffFile(other) as file:
        page = file.pages[0]
        pixels = page.asarray().astype(f"{order}u1").tobytes()
        height, width = page.shape
    at = len(data)
    data += pixels + b"\0" * (len(pixels) % 2)
    start = len(data)
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, at), (277, 1),
            (278, height), (279, len(pixels))]  # fmt: skip
    number = np.dtype(f"{order}u2"), np.dtype(f"{order}u4")
    data += np.array(len(tags), number[0]).tobytes()
    for tag, value in tags:
        data += np.array([tag, 4], number[0]).tobytes() + np.array([1, value], number[1]).tobytes()
    data += b"\0" * 4
    data[last + 2 + 12 * count : last + 6 + 12 * count] = np.array(start, number[1]).tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_reads_as_viewers_show_it(tmp_path, refused, dtype, compression):
    page = (PAGES[0] > 90) if dtype is bool else PAGES[0].astype(dtype)
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, page, photometric="miniswhite", compression=compression)
    wanted = ~page if dtype is bool else np.iinfo(dtype).max - page
    assert (wanted == np.asarray(open_source(str(path)))[:, :, 0].T).all()
    image = tmp_path / "i.tif"
    tifffile.imwrite(image, PAGES[0])
    assert "WhiteIsZero" in refused(image, *SIZE, "--instance", path)


def test_turned_pages_are_refused(tmp_path, refused):
    tifffile.imwrite(tmp_path / "v.tif", PAGES[0], extratags=[(274, "H", 1, 6, True)])
    assert "Orientation 6" in refused(tmp_path / "v.tif", *SIZE)


def _palette_png(path, labels):
    picture = Image.fromarray(labels).convert("P")
    picture.putdata(labels.ravel().tolist())
    picture.putpalette([c for k in range(256) for c in (k * 37 % 256, k * 91 % 256, k)])
    picture.save(path)


def _palette_tiff(path, labels):
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(path, labels, photometric="palette", colormap=colours)


@pytest.mark.parametrize("write", [_palette_png, _palette_tiff], ids=["png", "tif"])
@pytest.mark.parametrize("folder", [False, True])
def test_indexed_colours_are_indices_of_labels_and_no_image(tmp_path, refused, write, folder):
    labels = (np.arange(PAGES[0].size) % 13).astype(np.uint8).reshape(PAGES[0].shape)
    suffix = "png" if write is _palette_png else "tif"
    (tmp_path / "l").mkdir()
    for z in range(2):
        write(tmp_path / "l" / f"{z}.{suffix}", labels)
    image = hdf5(tmp_path / "v.h5", STACK[:, :, :2])
    path = tmp_path / "l" if folder else tmp_path / "l" / f"0.{suffix}"
    assert (labels == np.asarray(open_source(str(path), "instance"))[:, :, 0].T).all()
    if folder:
        words = ["--studies", tmp_path / "s", "--semantic", path, "--instance", path]
        assert run("import", image, *words) == 0
        item = items(tmp_path / "s")[0]
        assert (labels == item.read_final()[:, :, 1].T).all()
        assert (np.maximum(item.read_instances()[:, :, 1].T, 0) == labels).all()
    err = refused(path, *SIZE)
    assert "indexed-colour" in err and "--semantic or --instance" in err


def test_sections_that_a_program_wrote_as_colours_are_refused_with_the_way_out(tmp_path, refused):
    """Four grey sections in one array are tagged as planes of one colour image by tifffile."""
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, np.stack(PAGES[:4]), photometric="rgb", planarconfig="separate")
    assert "photometric='minisblack'" in refused(path, *SIZE)
    path.unlink()
    tifffile.imwrite(path, np.stack(PAGES[:4]), photometric="minisblack")
    assert run("import", path, *SIZE, "--studies", tmp_path / "study") == 0
    assert (items(tmp_path / "study")[0].open_image()[...] == STACK[:, :, :4]).all()
