"""Classes at the level of objects by blocks: those of the whole, whatever the cut, and again."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastremap
import numpy as np
import pytest
from block_cases import bytes_of, case, command
from scipy.ndimage import gaussian_filter

from lib.blocks.cells import classes_by_cells, count_votes, name_cells_of
from lib.blocks.ledger import Ledger
from lib.blocks.plan import FOLDER
from lib.commands import main
from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import load_hierarchy
from lib.prediction.classes import FINE_VALUE, GROUP_VALUE
from lib.prediction.object_classes import classes_of_objects
from lib.volumes.boxes import box_slices
from lib.volumes.readers.opening import open_source

HIERARCHY = load_hierarchy()
OPTIONS = ["inference.object_threshold=0.0", "inference.min_object_voxels=4",
    "inference.instance_block=[24,24,12]", "inference.instance_overlap=8",
    "inference.long_range=[2,3]", "inference.affinity_margin=0.2"]  # fmt: skip


def blobs(shape: tuple[int, int, int], count: int, seed: int, sigma: float = 1.5) -> np.ndarray:
    """(X, Y, Z) values 0..count - 1 in lumps."""
    rng = np.random.default_rng(seed)
    return np.argmax(
        [gaussian_filter(rng.random(shape), sigma) for _ in range(count)], axis=0
    )  # fmt: skip


@pytest.mark.parametrize("learned", [None, frozenset({"axon", "dendrite", "mitochondria"})])
def test_blocks_add_up_to_the_whole(tmp_path: Path, learned: Any) -> None:
    shape = (33, 20, 15)
    number = blobs(shape, 9, 2, 3.0)
    cells = number.astype(np.uint64) * 2**40
    names = ["axon", "dendrite", "glia", "axon", "soma", "dendrite", "glia", "axon", "axon"]
    mostly = np.array([HIERARCHY.class_names.index(n) for n in names])[number]
    fine = np.where(blobs(shape, 3, 3) > 0, mostly, blobs(shape, HIERARCHY.num_classes, 1))
    fine = (fine + FINE_VALUE).astype(np.uint8)
    inference = InferenceSettings(min_object_voxels=9)
    expected = classes_of_objects(fine, fastremap.renumber(cells)[0], HIERARCHY, inference, learned)
    for step in ((8, 8, 8), (1, 20, 5), (40, 40, 40)):
        out = tmp_path / "-".join(map(str, step))
        starts = [range(0, n, s) for n, s in zip(shape, step, strict=True)]
        blocks: dict[Any, Any] = {
            (i, j, k): tuple(
                (a, min(a + s, n)) for a, s, n in zip((x, y, z), step, shape, strict=True)
            )
            for i, x in enumerate(starts[0])
            for j, y in enumerate(starts[1])
            for k, z in enumerate(starts[2])
        }
        predictor: Any = SimpleNamespace(
            hierarchy=HIERARCHY, inference=inference, classes_learned=learned
        )
        for index, box in blocks.items():
            at = box_slices(box)
            count_votes(out, index, fine[at], cells[at], HIERARCHY)
        told = name_cells_of(out, list(blocks), predictor)
        assert told["cells"] == 8 and told["organelles"] > 3
        found = np.zeros(shape, np.uint8)
        for number, box in enumerate(blocks.values()):
            at = box_slices(box)
            found[at] = classes_by_cells(out, number, fine[at], cells[at], predictor)
        assert (found == expected).all()
    changed = expected != fine
    assert (changed & (expected < GROUP_VALUE)).any()
    assert (changed & (expected >= GROUP_VALUE)).any()


def test_naming_holds_the_faces_of_two_blocks_not_of_all(tmp_path: Path) -> None:
    side, count = 96, 24
    value = HIERARCHY.class_names.index("mitochondria") + FINE_VALUE
    fine = np.full((side, side, 2), value, np.uint8)
    predictor: Any = SimpleNamespace(
        hierarchy=HIERARCHY, inference=InferenceSettings(), classes_learned=None
    )
    blocks = [(0, 0, k) for k in range(count)]
    for index in blocks:
        count_votes(tmp_path, index, fine, np.ones(fine.shape, np.uint64), HIERARCHY)
    tracemalloc.start()
    told = name_cells_of(tmp_path, blocks, predictor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told == {"cells": 1, "organelles": 1}, "one that goes through all blocks"
    faces = 2 * count * side * side * 4
    assert peak < faces / 2


def run(folder: Path, out: str, *more: str, task: str = "both", core: str = "[16,16,8]") -> None:
    words = command(folder, "--level", "object", *more, out=out, task=task)
    assert main([*words, *OPTIONS, f"blocks.core={core}"]) == 0


def layer(out: Path, name: str) -> np.ndarray:
    return np.asarray(open_source(str(out / name)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = case(tmp_path_factory.mktemp("cells"))
    run(root, "seg.zarr")
    return root


def test_each_cell_has_one_class_wherever_blocks_end(folder: Path) -> None:
    out = folder / "seg.zarr"
    cells, fine, classes = (layer(out, n) for n in ("objects", "fine", "classes"))
    inference = InferenceSettings(min_object_voxels=4)
    expected = classes_of_objects(fine, fastremap.renumber(cells)[0], HIERARCHY, inference)
    assert (classes == expected).all() and (classes != fine).any()
    assert not (out / FOLDER / "cells").exists(), "what only naming needed goes"
    words = command(folder, out="fine.zarr")
    assert main([*words, *OPTIONS]) == 0
    assert (layer(folder / "fine.zarr", "classes") == fine).all()


def test_classes_alone_are_the_same_and_objects_are_not_shown(folder: Path) -> None:
    run(folder, "alone.zarr", task="segmentation")
    out = folder / "alone.zarr"
    assert not (out / "objects").exists()
    assert (layer(out, "classes") == layer(folder / "seg.zarr", "classes")).all()


@pytest.mark.parametrize("stage", ["votes", "name", "classes"])
def test_a_run_that_died_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    add, done = Ledger.add, [0]

    def dying(self: Ledger, entry: Any) -> None:
        done[0] += entry.stage == stage
        if done[0] > (0 if stage == "name" else 2):
            raise KeyboardInterrupt  # the block is written, and not noted
        add(self, entry)

    words = command(folder, "--level", "object", out=str(tmp_path / "seg.zarr"), task="both")
    words = [*words, *OPTIONS]
    monkeypatch.setattr(Ledger, "add", dying)
    assert main(words) == 130
    monkeypatch.undo()
    assert main(words) == 0
    assert bytes_of(tmp_path / "seg.zarr") == bytes_of(folder / "seg.zarr")


def test_workers_give_the_bytes_of_one_process(folder: Path) -> None:
    pytest.importorskip("distributed")
    run(folder, "two.zarr", "--workers", "2")
    assert bytes_of(folder / "two.zarr") == bytes_of(folder / "seg.zarr")


def test_another_level_is_another_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(folder, "--level", "fine", out="seg.zarr", task="both")
    assert main([*words, *OPTIONS]) == 1
    assert "level 'object', now 'fine'" in capsys.readouterr().err
