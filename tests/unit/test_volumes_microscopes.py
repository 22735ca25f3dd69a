"""MRC, DM3 and DM4, the codecs of EM archives, and sizes that microscopes write into TIFF."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import tifffile
from dm_files import write_dm
from import_cases import items, refusals, run
from volume_files import SIZE_NM, volume

from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source


def mrc(path, data, size_nm=SIZE_NM):
    with mrcfile.new(path) as file:
        file.set_data(np.ascontiguousarray(data.T))
        file.header.mz = data.shape[2]
        if size_nm:
            file.voxel_size = tuple(s * 10 for s in size_nm)
    return path


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8])
@pytest.mark.parametrize("suffix", ["mrc", "rec", "ST"])
def test_mrc_volumes(tmp_path, dtype, suffix):
    data = (volume(dtype=np.uint8) // 2).astype(dtype)
    path = mrc(tmp_path / "v.mrc", data).rename(tmp_path / f"v.{suffix}")
    source = open_source(str(path))
    assert source.dtype == dtype and (np.asarray(source) == data).all()
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)
    assert run("import", path, "--studies", tmp_path / "s") == 0
    assert (items(tmp_path / "s")[0].open_image()[...] == data).all()


def test_bytes_of_imod_are_unsigned_unless_it_says_signed(tmp_path):
    data = volume()
    path = mrc(tmp_path / "v.mrc", data.view(np.int8))
    raw = bytearray(path.read_bytes())
    for flags, wanted in ((0, data), (1, data.view(np.int8))):
        raw[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(raw)
        source = open_source(str(path))
        assert source.dtype == wanted.dtype and (np.asarray(source) == wanted).all()


def test_mrc_headers(tmp_path):
    data = volume(dtype=np.uint16)
    for size in (None, (0.1, 0.1, 0.1)):  # nothing, and what programs write that know none
        path = tmp_path / "v.mrc"
        path.unlink(missing_ok=True)
        assert open_source(str(mrc(path, data, size))).info.voxel_size_nm is None
    with mrcfile.new(tmp_path / "w.mrc") as file:
        file.set_extended_header(np.frombuffer(b"x" * 800, "V1"))
        file.set_data(np.ascontiguousarray(data.T))
    assert (np.asarray(open_source(str(tmp_path / "w.mrc"))) == data).all()
    cut = (tmp_path / "w.mrc").read_bytes()[:2000]
    (tmp_path / "w.mrc").write_bytes(cut)
    with pytest.raises(VolumeError, match="truncated"):
        open_source(str(tmp_path / "w.mrc"))


@pytest.mark.parametrize("suffix", ["dm3", "dm4", "DM3"])
@pytest.mark.parametrize("thumbnail", [True, False])
def test_dm_stacks(tmp_path, suffix, thumbnail):
    data = volume(dtype=np.uint16)
    path = tmp_path / f"v.{suffix}"
    write_dm(path, [(data, (0.004, 5.0, 40.0), ("µm", "nm", "nm"))], thumbnail)
    source = open_source(str(path))
    assert (np.asarray(source) == data).all() and source.dtype == np.uint16
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)


def test_dm_sections_and_units(tmp_path):
    page = volume((6, 5, 1))[:, :, 0]
    write_dm(tmp_path / "v.dm3", [(page, (4.0, 5.0), ("nm", "nm"))])
    source = open_source(str(tmp_path / "v.dm3"))
    assert (source[:, :, 0] == page).all() and source.info.voxel_size_nm == (4, 5, 4)
    write_dm(tmp_path / "w.dm3", [(volume(), (4.0, 5.0, 1.0), ("nm", "nm", "slices"))])
    info = open_source(str(tmp_path / "w.dm3")).info
    assert info.voxel_size_nm is None and "slices" not in str(info.voxel_size_nm)


def test_dm_files_with_several_images_are_refused(tmp_path, capsys):
    page = volume((6, 5, 1))[:, :, 0]
    write_dm(tmp_path / "v.dm3", [(page, (4.0, 5.0), ("nm", "nm"))] * 2)
    err = refusals(tmp_path / "s", capsys)(tmp_path / "v.dm3")
    assert "2 grey images (6 x 5; 6 x 5)" in err
    write_dm(tmp_path / "v.dm3", [(page, (4.0, 5.0), ("nm", "nm"))])
    data = (tmp_path / "v.dm3").read_bytes()
    (tmp_path / "v.dm3").write_bytes(data[: len(data) // 2])
    err = refusals(tmp_path / "s", capsys)(tmp_path / "v.dm3")
    assert "truncated" in err or "damaged" in err


@pytest.mark.parametrize(
    ("codec", "exact"),
    [("lzw", True), ("packbits", True), ("zlib", True), ("zstd", True), ("lzma", True),
     ("jpeg2000", True), ("jpeg", False), ("jpegxl", True), ("lerc", True), ("png", True)],
)  # fmt: skip
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_codecs_of_tiff(tmp_path, codec, exact, tile):
    z, y, x = np.mgrid[:2, :40, :36]
    data = (100 + 50 * np.sin(x / 9) + 40 * np.cos(y / 7) + z).astype(np.uint8)
    options = {"tile": tile} if tile else {"rowsperstrip": 16}
    if codec == "png" and not tile:
        options = {}
    tifffile.imwrite(
        tmp_path / "v.tif", data, photometric="minisblack", compression=codec, **options
    )
    got = np.asarray(open_source(str(tmp_path / "v.tif"))).T
    assert got.shape == data.shape
    assert (got == data).all() if exact else abs(got.astype(int) - data).max() < 12


def test_sizes_of_print_are_no_voxel_sizes(tmp_path):
    page = volume((6, 5, 1))[:, :, 0].T
    for unit, count, wanted in (
        ("CENTIMETER", 2.5e6, (4, 4, 4)), ("INCH", 300, None), ("CENTIMETER", 100, None),
        ("NONE", 1, None),
    ):  # fmt: skip
        tifffile.imwrite(
            tmp_path / "v.tif", page, resolution=(count, count), resolutionunit=unit, metadata=None
        )
        size = open_source(str(tmp_path / "v.tif")).info.voxel_size_nm
        assert size == (pytest.approx(wanted) if wanted else None), unit


def test_imagej_units_of_each_axis(tmp_path):
    metadata = {"axes": "ZYX", "spacing": 0.04, "unit": "nm", "yunit": "um", "zunit": "micron"}
    tifffile.imwrite(
        tmp_path / "v.tif",
        volume().T,
        imagej=True,
        resolution=(1 / 4, 1 / 0.005),
        metadata=metadata,
    )
    assert open_source(str(tmp_path / "v.tif")).info.voxel_size_nm == pytest.approx(SIZE_NM)


def test_pixel_sizes_of_electron_microscopes(tmp_path):
    """FEI and Zeiss write them into tags of their own, in metres and in words."""
    page = volume((6, 5, 1))[:, :, 0].T
    fei = "[Scan]\r\nPixelWidth=4e-09\r\nPixelHeight=5e-09\r\n"
    zeiss = "0\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 4.500 nm\r\n"
    for tag, text, wanted in ((34682, fei, (4, 5, 4)), (34118, zeiss, (4.5, 4.5, 4.5))):
        extra = [(tag, "s", len(text) + 1, text, True)]
        tifffile.imwrite(tmp_path / "v.tif", page, metadata=None, extratags=extra)
        source = open_source(str(tmp_path / "v.tif"))
        assert source.info.voxel_size_nm == pytest.approx(wanted), text
