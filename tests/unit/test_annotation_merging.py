"""Submissions that merge: held against a plain model of what was painted when."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from submission_cases import AXON, SHAPE, H, strokes, study_of_one, upload

from lib.annotation.submissions import submit
from lib.annotation.versions import SubmissionOptions
from lib.volumes.boxes import box_slices

INFO = [{"name": name, "idx": i} for i, name in enumerate(("axon", "dendrite", "uncertain"), 1)]
SETS = np.array([H.unknown, AXON, H.set_named("dendrite"), H.unknown], np.int32)
UNCERTAIN = 3


def spans(size: int) -> st.SearchStrategy[tuple[int, int]]:
    """A span that holds a voxel."""
    ends = st.tuples(st.integers(0, size - 1), st.integers(1, size))
    return ends.filter(lambda span: span[0] < span[1])


TURNS = st.lists(
    st.tuples(
        st.integers(0, 99),
        st.sampled_from(["merge", "replace"]),
        st.none() | st.tuples(*[spans(n) for n in SHAPE]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12, deadline=None)
@given(turns=TURNS)
def test_labels_are_what_was_painted_last_where_it_was_meant(turns) -> None:
    wanted = np.zeros(SHAPE, np.uint8)
    with TemporaryDirectory() as folder:
        study = study_of_one(Path(folder) / "study")
        for seed, mode, roi in turns:
            painted = strokes(seed, UNCERTAIN + 1)
            painted[strokes(seed + 1000, 3) > 0] = 0  # little of it
            raw = upload(Path(folder), painted)
            submit(study, "one", raw, INFO, SubmissionOptions(roi=roi, mode=mode))
            where = np.zeros(SHAPE, np.bool_)
            where[box_slices(roi) if roi else ...] = True
            if mode == "merge":
                where &= painted > 0
            wanted[where] = painted[where]
            item = study.item("one")
            np.testing.assert_array_equal(item.read_class_sets(), SETS[wanted])
            said = int(np.isin(wanted, (1, 2)).sum())
            share = sum(v for k, v in item.record.known_share.items() if k != "unknown")
            assert abs(share - said / wanted.size) < 1e-6, "and the record counts the same"


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_submission_twice_is_as_once(seed: int) -> None:
    with TemporaryDirectory() as folder:
        study, raw = study_of_one(Path(folder) / "study"), upload(Path(folder), strokes(seed, 3))
        found = []
        for _ in range(2):
            submit(study, "one", raw, INFO[:2], SubmissionOptions(mode="merge"))
            item = study.item("one")
            found.append((item.read_class_sets(), item.read_instances()))
        for once, twice in zip(*found, strict=True):
            np.testing.assert_array_equal(twice, once)
