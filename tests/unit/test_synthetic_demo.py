"""The demo command: items of each kind of annotation, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.commands import main
from lib.demo.items import annotation_kinds
from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.generate import generate
from lib.synthetic.partial import annotate, class_sets_of
from lib.volumes.study import Study

SIZE = ["--size", "48", "40", "8", "--voxel-size-nm", "8", "8", "40"]


def run(arguments: list[str]) -> int:
    return main(["demo", *arguments])


def test_demo_writes_items_of_every_kind_and_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--studies", str(tmp_path), "--items", "4", "--partial", "0.75", *SIZE]
    assert run(arguments) == 0
    hierarchy = load_hierarchy()
    items = Study(tmp_path, hierarchy).items()
    assert [item.id for item in items] == [f"synthetic-{i:03d}" for i in range(4)]
    unknown = [(item.read_class_sets() == hierarchy.unknown).mean() for item in items]
    assert unknown[0] < 0.05 < unknown[1] < 1.0 == unknown[3]
    assert set(np.unique(items[2].read_class_sets())) <= {
        *hierarchy.group_sets,
        hierarchy.unknown,
    }
    assert [item.record.fully_annotated for item in items] == [True, False, False, False]
    before = items[0].image_path.stat().st_mtime_ns
    capsys.readouterr()
    assert run(arguments) == 0
    assert capsys.readouterr().out.count("exists, kept") == 4
    assert items[0].image_path.stat().st_mtime_ns == before


def test_what_is_written_is_what_was_generated(tmp_path: Path) -> None:
    run(["--studies", str(tmp_path), "--items", "1", "--partial", "0", "--seed", "9", *SIZE])
    hierarchy = load_hierarchy()
    item = Study(tmp_path, hierarchy).item("synthetic-009")
    volume = generate((48, 40, 8), (8.0, 8.0, 40.0), 9)
    assert np.array_equal(np.asarray(item.open_image()[:, :, :]), volume.image)
    assert np.array_equal(item.read_class_sets(), class_sets_of(volume, hierarchy))
    assert np.array_equal(item.read_instances(), volume.instance)


def test_boxes_show_the_truth_and_hide_the_rest() -> None:
    hierarchy = load_hierarchy()
    volume = generate((48, 48, 8), (8.0, 8.0, 40.0), 2)
    labels = annotate(volume, hierarchy, "boxes", 2)
    assert labels is not None
    known = labels[0] != hierarchy.unknown
    assert 0.05 < known.mean() < 0.3
    assert np.array_equal(labels[0][known], class_sets_of(volume, hierarchy)[known])
    assert (labels[1][known] == volume.instance[known]).all()
    hidden = ~known & (volume.instance >= 0)
    assert (labels[1][hidden] == -1).all()


def test_shares_of_kinds() -> None:
    assert annotation_kinds(4, 0.5) == ["full", "full", "boxes", "groups"]
    assert annotation_kinds(2, 0.0) == ["full", "full"]
    assert annotation_kinds(3, 1.0) == ["boxes", "groups", "none"]


@pytest.mark.parametrize("bad", [["--items", "0"], ["--partial", "1.5"], ["--seed", "-1"]])
def test_bad_arguments_are_named(
    tmp_path: Path, bad: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--studies", str(tmp_path), *bad]) == 1
    assert capsys.readouterr().err.startswith(f"error: {bad[0]}")
