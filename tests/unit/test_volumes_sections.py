"""All sections or a refusal: TIFF pages and series, folders of sections, gaps, other images."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import tifffile
from import_cases import H, items, refusals, run
from PIL import Image
from volume_files import hdf5, volume

from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source

DATA = volume((13, 17, 9))
PAGES = [DATA[:, :, z].T.copy() for z in range(9)]
SIZE = ("--voxel-size-nm", 4, 5, 40)


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
    assert (np.asarray(open_source(str(tmp_path / "v.tif"))) == DATA).all()


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
    assert (np.asarray(open_source(f"{path}:1")) == DATA).all()
    assert open_source(f"{path}:0").shape == (7, 9, 1)
    assert "no series '2'" in refused(f"{path}:2", *SIZE)


def test_marked_thumbnails_and_pyramids_are_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        writer.write(PAGES[0][::4, ::4].copy(), metadata=None, subfiletype=1)
        for page in PAGES:
            writer.write(page, metadata=None, contiguous=False, subifds=1)
            writer.write(page[::2, ::2].copy(), metadata=None, subfiletype=1)
    assert (np.asarray(open_source(str(tmp_path / "v.tif"))) == DATA).all()


def test_two_ome_images_are_not_one_stack(tmp_path, refused):
    with tifffile.TiffWriter(tmp_path / "v.ome.tif", ome=True) as writer:
        for _ in range(2):
            writer.write(DATA.T, metadata={"axes": "ZYX"})
    assert "18 pages that are 2 images" in refused(tmp_path / "v.ome.tif", *SIZE)


def test_pages_behind_imagej_metadata_are_not_lost(tmp_path, refused):
    """A stack of ImageJ to which another program appended a page."""
    tifffile.imwrite(tmp_path / "v.tif", DATA.T, imagej=True, metadata={"axes": "ZYX"})
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
    image = hdf5(tmp_path / "v.h5", DATA[:, :, :2])
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


def folder_of(root: Path, names: dict[str, int]) -> Path:
    root.mkdir()
    for name, z in names.items():
        if name.lower().endswith((".tif", ".tiff")):
            tifffile.imwrite(root / name, PAGES[z])
        else:
            Image.fromarray(PAGES[z]).save(root / name)
    return root


ORDERED = {
    "numbers as numbers": {f"z{n}.png": n for n in range(9)},
    "capitals": {f"Z{n}.{'TIF' if n % 2 else 'tif'}": n for n in range(9)},
    "steps of ten": {f"z{10 * n}.png": n for n in range(9)},
    "a date and a time beside the number": {f"20201125_{170 + n * n}_{n:03}.png": n
                                            for n in range(9)},
    "no numbers at all": {f"{'abcdefghi'[n]}.png": n for n in range(9)},
}  # fmt: skip


@pytest.mark.parametrize("case", list(ORDERED))
def test_sections_in_order(tmp_path, case):
    source = open_source(str(folder_of(tmp_path / "s", ORDERED[case])))
    assert (np.asarray(source) == DATA).all()
    assert bool(source.info.warnings) == (case in ("steps of ten", "no numbers at all"))


BROKEN = {
    "a gap": ({f"z{n}.png": n for n in (0, 1, 2, 4, 7, 8)}, "0 to 8 without 3, 5, 6"),
    "a gap in steps": ({f"z{10 * n}.png": n for n in (0, 1, 2, 4)}, "without 30"),
    "two sections apart": ({f"z{n}.png": n for n in (1, 5)}, "without 2, 3, 4"),
    "two stacks by name": ({**{f"a{n}.png": n for n in range(4)},
                            **{f"b{n}.png": n for n in range(4)}}, "2 stacks: 4 like a0.png"),
    "two stacks by number": ({f"s{s}_z{n}.png": n for s in (1, 2) for n in range(4)},
                             "2 stacks, beginning with s1_z0.png, s2_z0.png"),
    "one number twice": ({"z1.png": 0, "z01.png": 1, "z2.png": 2}, "z1.png"),
    "two kinds": ({**{f"z{n}.png": n for n in range(3)}, **{f"z{n}.tif": n for n in range(3)}},
                  "2 stacks"),
    "a thumbnail": ({**{f"z{n}.png": n for n in range(3)}, "thumb.png": 0}, "2 stacks"),
    "a kind that is not read": ({**{f"z{n}.png": n for n in range(3)}, "z3.jpg": 3}, "z3.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BROKEN))
def test_sections_that_are_no_one_stack(tmp_path, refused, case):
    names, words = BROKEN[case]
    assert words in refused(folder_of(tmp_path / "s", names), *SIZE)


def test_one_of_two_stacks_can_be_named(tmp_path):
    names = {f"{s}{n}.png": n for s in "ab" for n in range(4)}
    source = open_source(f"{folder_of(tmp_path / 's', names)}:a*.png")
    assert (np.asarray(source) == DATA[:, :, :4]).all()
    with pytest.raises(VolumeError, match=r"without sections named c\*"):
        open_source(f"{tmp_path}/s:c*.png")


@pytest.mark.parametrize("where", ["image", "label"])
def test_missing_sections_are_unknown_where_asked(tmp_path, where):
    present = (0, 1, 2, 4, 7, 8)
    names = {f"z{n}.png": n for n in present}
    whole = {f"z{n}.png": n for n in range(9)}
    image = folder_of(tmp_path / "i", names if where == "image" else whole)
    ids = folder_of(tmp_path / "l", whole if where == "image" else names)
    (tmp_path / "m.yaml").write_text("values: {0-255: axon}")
    words = ["--semantic", ids, "--mapping", tmp_path / "m.yaml", "--instance", ids, "--crop",
             ":,:,1:", "--fully-annotated", "--missing-sections", "unknown"]  # fmt: skip
    assert run("import", image, "--studies", tmp_path / "s", *SIZE, *words) == 0
    item = items(tmp_path / "s")[0]
    got, sets, found = item.open_image()[...], item.read_class_sets(), item.read_instances()
    for z in range(1, 9):
        known = z in present
        read = DATA[:, :, z] if known or where == "label" else 0
        assert (got[:, :, z - 1] == read).all()
        assert (sets[:, :, z - 1] == (H.set_named("axon") if known else H.unknown)).all()
        assert (found[:, :, z - 1] == (DATA[:, :, z] if known else IGNORE_INDEX)).all()
    extra = {"missing_sections": [2, 4, 5]} if where == "image" else {}
    assert {k: v for k, v in item.record.extra.items() if k == "missing_sections"} == extra


def test_missing_sections_can_be_ignored(tmp_path):
    root = folder_of(tmp_path / "s", {f"z{n}.png": n for n in (0, 1, 4)})
    words = ["--studies", tmp_path / "st", *SIZE, "--missing-sections", "ignore"]
    assert run("import", root, *words) == 0
    assert (items(tmp_path / "st")[0].open_image()[...] == DATA[:, :, [0, 1, 4]]).all()


def nrrd_bytes(lines: str, data: bytes) -> bytes:
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 13 17 9\nspacings: 4 5 40\n"
    return (head + lines + "\n\n").encode() + data


FORTRAN = DATA.tobytes(order="F")
SKIPS = {
    "raw lines": ("encoding: raw\nline skip: 2", b"one\ntwo\n" + FORTRAN),
    "raw bytes": ("encoding: raw\nbyte skip: 5", b"12345" + FORTRAN),
    "raw lines and bytes": ("encoding: raw\nlineskip: 1\nbyteskip: 3", b"one\nabc" + FORTRAN),
    "raw from the end": ("encoding: raw\nbyte skip: -1", b"any number" + FORTRAN),
    "gzip lines": ("encoding: gzip\nline skip: 1", b"one\n" + gzip.compress(FORTRAN)),
    "gzip bytes": ("encoding: gzip\nbyte skip: 16", gzip.compress(b"0" * 16 + FORTRAN)),
    "gzip many bytes": ("encoding: gzip\nbyte skip: 90000", gzip.compress(b"0" * 90000 + FORTRAN)),
    "gzip from the end": ("encoding: gzip\nbyte skip: -1", gzip.compress(b"0" * 16 + FORTRAN)),
}


@pytest.mark.parametrize("case", list(SKIPS))
@pytest.mark.parametrize("detached", [False, True])
def test_skips_of_nrrd(tmp_path, case, detached):
    lines, data = SKIPS[case]
    path = tmp_path / ("v.nhdr" if detached else "v.nrrd")
    if detached:
        (tmp_path / "v.raw").write_bytes(data)
        path.write_bytes(nrrd_bytes(lines + "\ndata file: v.raw", b""))
    else:
        path.write_bytes(nrrd_bytes(lines, data))
    assert (np.asarray(open_source(str(path))) == DATA).all()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("encoding: raw\nline skip: 100000000", "at most"),
        ("encoding: raw\nline skip: -1", "line skip: -1"),
        ("encoding: raw\nbyte skip: -7", "byte skip: -7"),
        ("encoding: raw\ndata file: LIST", "several data files"),
        ("encoding: raw\ndata file: %03d.raw 1 9 1", "several data files"),
        ("encoding: hex", "encoding hex"),
    ],
)
def test_nrrd_headers_that_are_refused(tmp_path, refused, lines, words):
    suffix = "nhdr" if "data file" in lines else "nrrd"
    (tmp_path / f"v.{suffix}").write_bytes(nrrd_bytes(lines, FORTRAN))
    assert words in refused(tmp_path / f"v.{suffix}")


def test_nrrd_of_two_bytes_needs_its_byte_order(tmp_path, refused):
    data = nrrd_bytes("encoding: raw", FORTRAN * 2).replace(b"uint8", b"uint16")
    (tmp_path / "v.nrrd").write_bytes(data)
    assert "without `endian`" in refused(tmp_path / "v.nrrd")


@pytest.mark.parametrize("name", ["V.NII.GZ", "V.NII", "V.NRRD", "V.TIF", "V.PNG", "V.H5"])
def test_capitals_in_endings(tmp_path, name):
    import nibabel as nib
    import nrrd

    made = tmp_path / name.lower()
    page = DATA[:, :, :1]
    if "nii" in made.name:
        nib.save(nib.Nifti1Image(DATA, np.diag([4, 5, 40, 1])), made)
    elif made.suffix == ".nrrd":
        nrrd.write(str(made), DATA)
    elif made.suffix == ".h5":
        hdf5(made, DATA)
    elif made.suffix == ".tif":
        tifffile.imwrite(made, DATA.T)
    else:
        Image.fromarray(PAGES[0]).save(made)
    made.rename(tmp_path / name)
    got = np.asarray(open_source(str(tmp_path / name)))
    assert (got == (page if "PNG" in name else DATA)).all()
    assert run("import", tmp_path / name, "--studies", tmp_path / "s", *SIZE) == 0
    assert items(tmp_path / "s")[0].id == "V"
