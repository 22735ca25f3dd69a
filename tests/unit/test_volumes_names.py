"""Names of items: every one that the file system and the formats can carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from volume_files import SIZE_NM, labels, nifti, volume

from lib.annotation.submissions import submit
from lib.annotation.versions import versions
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)


BAD_IDS = ["", ".hidden", "a/b", "../a", "a\\b", "a\n", " a", "a ", "a.seg", "\ud800", "ä" * 91]
GOOD_IDS = [
    "a b",
    "a.b.c",
    "Gehirn-ß-脳",
    "a+b",
    "100%",
    "[a]*?",
    "a.nii",
    "ä" * 90,
    "-a",
    "#1 'x\"",
]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_that_file_names_cannot_carry_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="expected at most 180 bytes of text without"):
        Study(tmp_path, H).add_item(bad, volume(SHAPE), SIZE_NM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("good", GOOD_IDS)
def test_every_other_name_is_an_id(tmp_path, good):
    study = Study(tmp_path, H)
    for name in (good, "a"):
        study.add_item(name, volume(SHAPE), SIZE_NM, *labels())
    assert sorted(i.id for i in study.items()) == sorted([good, "a"])
    assert study.item(good).record.id == good
    label = nifti(tmp_path / "up.nii.gz", np.ones(SHAPE, np.uint8))
    submit(study, good, Path(label), [{"name": "axon"}])
    assert (study.item(good).read_class_sets() == H.set_named("axon")).all()
    assert versions(study, "a") == [] and len(versions(study, good)) == 1
    assert [r.id for r in (i.record for i in study.items())] == [i.id for i in study.items()]
    study.add_item("a", volume(SHAPE), SIZE_NM, replace=True)
    with pytest.raises(VolumeError, match="submissions of annotators"):
        study.add_item(good, volume(SHAPE), SIZE_NM, replace=True)
