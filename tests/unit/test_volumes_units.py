"""Voxel sizes are those that a file states, in whatever spelling, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel as nib
import nrrd
import numpy as np
import pytest
import tifffile
from import_cases import refusals, run
from volume_files import SIZE_NM, chunked, nifti, volume

from lib.volumes.lengths import UNSTATED, stated_size, unit_nm
from lib.volumes.readers.opening import open_source

SPELLINGS = {
    1.0: ["nm", "NM", "nanometer", "Nanometers", "nanometre", " nm "],
    1e3: ["um", "µm", "μm", "\\u00b5m", "micron", "Microns", "micrometer", "micrometres", "mum"],
    1e6: ["mm", "millimeter", "millimetres"],
    1e7: ["cm"],
    1e9: ["m", "meter"],
    0.1: ["angstrom", "Å", "Ångström", "A"],
    1e-3: ["pm", "picometer"],
    2.54e7: ["inch"],
}


@pytest.mark.parametrize(("factor", "unit"), [(f, u) for f, us in SPELLINGS.items() for u in us])
def test_every_spelling_of_a_unit(factor, unit):
    assert unit_nm(unit) == factor


@pytest.mark.parametrize("unit", [None, "", "pixel", "Pixels", "unknown", "\0"])
def test_words_for_no_unit(unit):
    assert unit_nm(unit) is None


@pytest.mark.parametrize("unit", ["furlong", "second", "micrometerz", "nm/px", "5"])
def test_other_words_are_no_units(unit):
    with pytest.raises(ValueError, match="no unit of length"):
        unit_nm(unit)
    assert stated_size((1, 1, 1), unit).nm is None and unit in stated_size((1, 1, 1), unit).fault


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_lengths_that_are_none(bad):
    size = stated_size((4, 5, bad))
    assert size.nm is None and "a voxel size of 4 x 5 x" in size.fault


def test_zeros_are_what_nobody_filled_in():
    assert stated_size((0, 0.0, 0)) == UNSTATED


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e3), ("mm", 1), ("meter", 1e9)])
def test_units_of_nifti(tmp_path, unit, factor):
    image = nib.Nifti1Image(volume(), np.diag([*np.divide(SIZE_NM, factor), 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "v.nii")
    size = open_source(str(tmp_path / "v.nii")).info.voxel_size_nm
    assert size == pytest.approx(SIZE_NM, rel=1e-5)


def test_a_nifti_is_as_large_as_viewers_show_it(tmp_path):
    """The sform is what they show, turned or not; pixdim alone where there is none."""
    turned = np.zeros((4, 4))
    turned[[1, 0, 2, 3], [0, 1, 2, 3]] = [*SIZE_NM, 1]
    for name, sform in (("a", np.diag([*SIZE_NM, 1])), ("b", turned)):
        image = nib.Nifti1Image(volume(), None)
        image.set_sform(sform, 1)
        image.header["pixdim"][1:4] = 1
        image.header["qform_code"] = 0
        nib.save(image, tmp_path / f"{name}.nii")
        assert open_source(str(tmp_path / f"{name}.nii")).info.voxel_size_nm == SIZE_NM


def test_a_nifti_with_an_unknown_unit_code(tmp_path):
    path = Path(nifti(tmp_path / "v.nii", volume()))
    data = bytearray(path.read_bytes())
    data[123] = 7
    path.write_bytes(data)
    info = open_source(str(path)).info
    assert info.voxel_size_nm is None and "unit code 7" in info.size_fault


@pytest.mark.parametrize("key", ["space units", "units"])
@pytest.mark.parametrize("words", [["micrometers"] * 3, ["um", "nm", "um"]])
def test_units_of_nrrd(tmp_path, key, words):
    lengths = [s / unit_nm(u) for s, u in zip(SIZE_NM, words, strict=True)]
    header = {"spacings": lengths, "units": words}
    if key == "space units":
        header = {"space dimension": 3, "space directions": np.diag(lengths), key: words}
    nrrd.write(str(tmp_path / "v.nrrd"), volume(), header)
    assert open_source(str(tmp_path / "v.nrrd")).info.voxel_size_nm == pytest.approx(SIZE_NM)


def _nrrd(folder, unit):
    header = {"spacings": [4.0, 5.0, 40.0], "units": [unit] * 3}
    nrrd.write(str(folder / "v.nrrd"), volume(), header)
    return folder / "v.nrrd"


def _imagej(folder, unit):
    tifffile.imwrite(
        folder / "v.tif", volume().T, imagej=True, resolution=(1 / 4, 1 / 5),
        metadata={"axes": "ZYX", "spacing": 40.0, "unit": unit},
    )  # fmt: skip
    return folder / "v.tif"


def _ome(folder, unit):
    sizes = {f"PhysicalSize{a}": s for a, s in zip("XYZ", SIZE_NM, strict=True)}
    units = {f"PhysicalSize{a}Unit": unit for a in "XYZ"}
    path = folder / "v.ome.tif"
    tifffile.imwrite(path, volume().T, ome=True, metadata={"axes": "ZYX", **sizes, **units})
    return path


def _zarr(folder, unit):
    chunked("zarr", folder / "v.zarr", volume().T, {"chunks": [4, 8, 8]})
    attributes = {"resolution": list(SIZE_NM[::-1]), "units": [unit] * 3}
    (folder / "v.zarr" / ".zattrs").write_text(json.dumps(attributes))
    return folder / "v.zarr"


def _n5(folder, unit):
    chunked("n5", folder / "v.n5", volume(), {"blockSize": [8, 8, 4]})
    path = folder / "v.n5" / "attributes.json"
    resolution = {"pixelResolution": {"unit": unit, "dimensions": list(SIZE_NM)}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **resolution}))
    return folder / "v.n5"


def _hdf5(folder, unit):
    with h5py.File(folder / "v.h5", "w") as file:
        file["raw"] = volume().T
        file["raw"].attrs["resolution"] = SIZE_NM[::-1]
        file["raw"].attrs["units"] = [unit] * 3
    return folder / "v.h5"


WRITERS = [_nrrd, _imagej, _ome, _zarr, _n5, _hdf5]


@pytest.mark.parametrize("make", WRITERS, ids=lambda f: f.__name__)
def test_an_unknown_unit_is_refused_unless_the_size_is_given(tmp_path, capsys, make):
    path = make(tmp_path, "furlongs")
    err = refusals(tmp_path / "study", capsys)(path)
    assert "'furlongs'" in err and "--voxel-size-nm" in err and str(path) in err
    words = ["--studies", tmp_path / "study", "--voxel-size-nm", 4, 5, 40]
    assert run("import", path, *words) == 0
    assert "of 4 x 5 x 40 nm" in capsys.readouterr().out


@pytest.mark.parametrize("make", WRITERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("unit", "factor"), [("micrometers", 1e3), ("Angstrom", 0.1)])
def test_units_are_obeyed_in_every_format(tmp_path, make, unit, factor):
    info = open_source(str(make(tmp_path, unit))).info
    assert info.voxel_size_nm == pytest.approx([s * factor for s in SIZE_NM])


@pytest.mark.parametrize("make", WRITERS, ids=lambda f: f.__name__)
def test_a_size_in_pixels_is_not_stated(tmp_path, make):
    info = open_source(str(make(tmp_path, "pixel"))).info
    if make is _nrrd:  # without a unit it is as large as the viewers' files
        assert info.voxel_size_nm == SIZE_NM
    else:
        assert info.voxel_size_nm is None and info.size_fault == ""
