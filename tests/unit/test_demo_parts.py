"""Parts of the demo: how items are annotated, what an annotator paints, other hierarchies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.demo.items import annotation_kinds, write_synthetic_item
from lib.demo.session import paint_region
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy
from lib.queries.select import Query
from lib.synthetic.partial import PARTIAL
from lib.volumes.boxes import Box, box_slices
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
NAMES = HIERARCHY.class_names


@given(items=st.integers(0, 40), partial=st.floats(0, 1))
def test_the_first_items_are_full_and_the_others_take_turns(items: int, partial: float) -> None:
    kinds = annotation_kinds(items, partial)
    rest = round(partial * items)
    assert kinds[: items - rest] == ["full"] * (items - rest)
    assert kinds[items - rest :] == [PARTIAL[i % len(PARTIAL)] for i in range(rest)]
    counts = Counter(kinds[items - rest :])
    assert not counts or max(counts.values()) - min(counts[k] for k in PARTIAL) <= 1


def test_all_or_none_may_be_partial() -> None:
    assert annotation_kinds(3, 0.0) == ["full"] * 3
    assert "full" not in annotation_kinds(3, 1.0)
    assert annotation_kinds(0, 0.5) == []


def query(box: Box) -> Query:
    return Query("one", box, (0, 0, 0), "random", 0.0, "", 0.0)


@given(seed=st.integers(0, 999))
def test_an_annotator_paints_each_object_and_each_class_without_objects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = rng.choice([-1, 0, 3, 5], (6, 5, 4))
    ids = np.where(fine >= 3, rng.integers(1, 4, fine.shape), 0)
    box: Box = ((1, 5), (0, 4), (1, 3))
    truth = cast(Any, SimpleNamespace(fine=fine, instance=ids))
    painted, names = paint_region(truth, query(box), NAMES)
    assert painted.shape == fine.shape and painted.dtype == np.uint16
    outside = np.ones(fine.shape, bool)
    outside[box_slices(box)] = False
    assert not painted[outside].any(), "nothing beyond the region"
    part = painted[box_slices(box)]
    for value, c, i in zip(
        part.ravel(), fine[box_slices(box)].ravel(), ids[box_slices(box)].ravel(), strict=True
    ):
        if c < 0:
            assert value == 0, "what nobody knows is not painted"
        else:
            assert names[value - 1] == (f"{NAMES[c]} {i}" if i else NAMES[c])
    assert len(set(names)) == len(names) == int(painted.max(initial=0))


def test_a_study_of_other_classes_gets_no_synthetic_item(tmp_path: Path) -> None:
    study = Study(tmp_path, LabelHierarchy(HIERARCHY.classes[:2]))
    with pytest.raises(ValueError, match=r"this study has .*tear.*labels.hierarchy: default"):
        write_synthetic_item(study, "one", (32, 32, 8), (8.0, 8.0, 40.0), 0)
    assert not study.items()


def test_an_item_says_how_it_was_made(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    for name, kind in (("full", "full"), ("none", "none")):
        write_synthetic_item(study, name, (32, 32, 8), (8.0, 8.0, 40.0), 4, kind, split="val")  # type: ignore[arg-type]
    full, none = (study.item(n) for n in ("full", "none"))
    assert full.record.synthetic and "seed 4" in full.record.source["path"]
    assert full.record.fully_annotated and not none.record.fully_annotated
    assert full.record.split == "val" and none.record.split == "val"
    assert full.has_label("final") and not none.has_label("final")
    assert np.array_equal(full.open_image()[:, :, :], none.open_image()[:, :, :]), "by the seed"
