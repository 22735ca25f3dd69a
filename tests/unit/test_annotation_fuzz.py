"""Label files damaged at random are taken or refused in words; more of them in benchmarks."""

import warnings

import numpy as np
import pytest

from benchmarks.fuzz_labels import INFO, make_study, mutated, originals
from lib.annotation.submissions import recover, submit
from lib.annotation.versions import versions

COUNT = 40


@pytest.mark.filterwarnings("ignore")
def test_no_damaged_file_stops_the_next_one(tmp_path):
    study = make_study(tmp_path / "study")
    taken = 0
    for ending, data in mutated(np.random.default_rng(5), COUNT):
        upload = tmp_path / f"up{ending}"
        upload.write_bytes(data)
        try:
            submit(study, "one", upload, INFO)
            taken += 1
        except ValueError as error:
            assert str(error)
    assert 0 < taken < COUNT // 2
    assert recover(study) == []
    kept = versions(study, "one")
    assert len(kept) == COUNT and sum(not v.rejected for v in kept) == taken
    upload = tmp_path / "good.nii.gz"
    upload.write_bytes(originals()[".nii.gz"])
    with warnings.catch_warnings():
        assert submit(study, "one", upload, INFO).known_share["axon"] > 0
