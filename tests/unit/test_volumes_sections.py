"""Folders of sections: their order, gaps and stacks; capitals in the endings of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from import_cases import PAGES, SIZE, STACK, H, items, refusals, run
from PIL import Image
from volume_files import hdf5

from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


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
    assert (np.asarray(source) == STACK).all()
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
    assert (np.asarray(source) == STACK[:, :, :4]).all()
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
        read = STACK[:, :, z] if known or where == "label" else 0
        assert (got[:, :, z - 1] == read).all()
        assert (sets[:, :, z - 1] == (H.set_named("axon") if known else H.unknown)).all()
        assert (found[:, :, z - 1] == (STACK[:, :, z] if known else IGNORE_INDEX)).all()
    extra = {"missing_sections": [2, 4, 5]} if where == "image" else {}
    assert {k: v for k, v in item.record.extra.items() if k == "missing_sections"} == extra


def test_missing_sections_can_be_ignored(tmp_path):
    root = folder_of(tmp_path / "s", {f"z{n}.png": n for n in (0, 1, 4)})
    words = ["--studies", tmp_path / "st", *SIZE, "--missing-sections", "ignore"]
    assert run("import", root, *words) == 0
    assert (items(tmp_path / "st")[0].open_image()[...] == STACK[:, :, [0, 1, 4]]).all()


@pytest.mark.parametrize("name", ["V.NII.GZ", "V.NII", "V.NRRD", "V.TIF", "V.PNG", "V.H5"])
def test_capitals_in_endings(tmp_path, name):
    import nibabel as nib
    import nrrd

    made = tmp_path / name.lower()
    page = STACK[:, :, :1]
    if "nii" in made.name:
        nib.save(nib.Nifti1Image(STACK, np.diag([4, 5, 40, 1])), made)
    elif made.suffix == ".nrrd":
        nrrd.write(str(made), STACK)
    elif made.suffix == ".h5":
        hdf5(made, STACK)
    elif made.suffix == ".tif":
        tifffile.imwrite(made, STACK.T)
    else:
        Image.fromarray(PAGES[0]).save(made)
    made.rename(tmp_path / name)
    got = np.asarray(open_source(str(tmp_path / name)))
    assert (got == (page if "PNG" in name else STACK)).all()
    assert run("import", tmp_path / name, "--studies", tmp_path / "s", *SIZE) == 0
    assert items(tmp_path / "s")[0].id == "V"
