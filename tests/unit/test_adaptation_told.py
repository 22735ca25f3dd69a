"""What people are told of a refit; the rows that go along, and what a training run has to beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adaptation_cases import AXON, DIGEST, HIERARCHY, UNKNOWN, VOXEL, network

from lib.adaptation import rehearsal
from lib.adaptation.baseline import REHEARSAL, Training, rehearsal_study
from lib.adaptation.gate import Figure, Verdict
from lib.adaptation.grouping import Grouping
from lib.adaptation.item_rows import no_rows
from lib.adaptation.learner import sentence, with_objects
from lib.adaptation.objects import CANDIDATES, LearnedObjects
from lib.adaptation.rehearsal import (
    POWER,
    Reservoir,
    _by_set,
    pooled,
    reservoir_for,
    reservoir_path,
    synthetic_reservoir,
    volume_rows,
)
from lib.configs.settings import Settings
from lib.data.items import DataItem, LabelCache
from lib.data.splits import GAP, ItemSplit
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.features import FeatureSource
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.learned import Joining, Learned, Stored
from lib.volumes.study import Study

NET = network()
OTHER = LabelHierarchy(HIERARCHY.classes[:3])
YES, NO = torch.tensor([True]), torch.tensor([False])


def figure(name: str = "axon", **more: object) -> Figure:
    values = {"before": 0.25, "after": 0.5, "sure": 1.0, "voxels": 10, "used": True, **more}
    return Figure(name, **values)  # type: ignore[arg-type]


def test_what_is_in_use_is_told_with_its_gain() -> None:
    verdict = Verdict(YES, YES, 1.0, (figure(), figure("glia", used=False, after=0.2)))
    assert sentence(verdict, 2, 12345) == (
        "Learned from 12,345 labelled voxels in 2 items, judged on parts held back: "
        "axon IoU 0.25 -> 0.50, in use; glia IoU 0.25 -> 0.20, left as it was."
    )
    assert "in 1 item," in sentence(verdict, 1, 10)


def test_what_is_not_in_use_is_told_with_its_reason() -> None:
    refused = Verdict(NO, NO, 0.0, (figure(used=False),), "no class is surely better")
    assert sentence(refused, 1, 500) == (
        "Not used, from 500 labelled voxels in 1 item: no class is surely better "
        "(axon IoU 0.25 -> 0.50, left as it was)."
    )
    bare = Verdict(NO, NO, 0.0, (), "too little to tell")
    assert sentence(bare, 1, 5).endswith("in 1 item: too little to tell.")
    assert sentence(bare, 3, 0).startswith("Nothing to learn from: no voxel of a known class")


def test_a_one_sided_class_beside_others_is_told_what_to_mark() -> None:
    """And no IoU: one of nearly 1 would be read as a success."""
    judged = figure("glia", before=0.1)
    verdict = Verdict(YES, YES, 1.0, (figure(used=False, one_sided=True), judged))
    assert sentence(verdict, 1, 5) == (
        "Learned from 5 labelled voxels in 1 item, judged on parts held back: axon left as it "
        "was, since next to nothing is known that is not axon (mark more of what else is there, "
        "or declare a region fully annotated); glia IoU 0.10 -> 0.50, in use."
    )


def test_objects_are_told_after_classes() -> None:
    stored = Stored(Learned("Not used.", False, DIGEST, "labels", seconds=1.0), None)
    joining = Joining(1.0)
    used = LearnedObjects(1, joining, 0.5, 0.25, 12, True, by="the marks")
    made = with_objects(stored, Grouping(used, None), 2.345)
    assert made.learned.sentence == (
        "Not used. Marked objects, adapted Rand error 0.50 -> 0.25 by 12 marked objects, "
        "boundaries from the marks, in use."
    )
    assert made.learned.used and made.learned.seconds == 2.35 and made.joining == joining
    refused = LearnedObjects(0, joining, 0.5, 0.49, 12, False, "the error would go on")
    made = with_objects(stored, Grouping(refused, None), 2.0)
    assert (
        made.learned.sentence
        == "Not used. Marked objects left as they were: the error would go on."
    )
    assert not made.learned.used and made.joining is None
    assert LearnedObjects().sentence == ""
    assert len(set(CANDIDATES)) == len(CANDIDATES)


# Rehearsal ------------------------------------------------------------------------------------


def test_rare_sets_get_more_than_their_share() -> None:
    sets = np.full((100, 20, 10), UNKNOWN, np.int32)
    sets[:81], sets[81:82], sets[82, 0, 0] = 1, 2, 4
    chosen = _by_set(sets, UNKNOWN, 500, np.random.default_rng(0))
    values = sets[tuple(chosen.T)]
    counts = {v: int((values == v).sum()) for v in (1, 2, 4)}
    assert len(np.unique(chosen, axis=0)) == len(chosen), "no voxel twice"
    assert counts[4] == 1, "what there is of a set"
    share = 16200**POWER / (16200**POWER + 200**POWER + 1)
    assert counts[1] == int(np.ceil(500 * share))
    assert counts[2] == int(np.ceil(500 * share / 9))
    assert len(_by_set(np.full((2, 2, 2), UNKNOWN), UNKNOWN, 9, np.random.default_rng(0))) == 0


def test_rows_of_a_volume_are_the_networks_own_of_the_voxels_chosen() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 18, 6)).astype(np.uint8)
    sets = np.full(image.shape, UNKNOWN, np.int32)
    sets[:4], sets[10:12] = 1 << AXON, 1 << 2
    features, values = volume_rows(NET, image, VOXEL, sets, UNKNOWN, 60, 3)
    chosen = _by_set(sets, UNKNOWN, 60, np.random.default_rng(3))
    assert features.shape == (len(chosen), NET.feature_channels + FILTERS)
    assert features.dtype == torch.float16
    assert values.tolist() == sets[tuple(chosen.T)].tolist()
    source = FeatureSource(NET, image)
    whole = ((0, 20), (0, 18), (0, 6))
    x, y, z = torch.from_numpy(chosen).T
    expected = source([whole])[0][:, x, y, z].T.float()
    own = features[:, : NET.feature_channels].float()
    assert torch.allclose(own, expected, atol=0.02)


def test_a_pool_of_nothing_has_no_rows_of_the_right_width() -> None:
    empty = pooled([], DIGEST, 7)
    assert empty.features.shape == (0, 7) and len(empty.sets) == 0 and empty.weights == DIGEST
    two = pooled(
        [(torch.ones((2, 7)), torch.ones(2)), (torch.zeros((1, 7)), torch.ones(1))], "d", 7
    )
    assert two.features[:, 0].tolist() == [1, 1, 0]
    rows = no_rows(5)
    assert len(rows) == 0 and rows.features.shape == (0, 5)


def test_other_classes_than_those_of_synthetic_neuropil_have_no_rows() -> None:
    made = synthetic_reservoir(NET, OTHER, DIGEST)
    assert made.features.shape == (0, NET.feature_channels + FILTERS) and made.weights == DIGEST


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rehearsal rows that cost nothing to make, and for whom they were made."""
    made: list[str] = []

    def rows(net: object, hierarchy: object, digest: str) -> Reservoir:
        made.append(digest)
        width = NET.feature_channels + FILTERS
        return Reservoir(torch.zeros((1, width)).half(), torch.ones(1, dtype=torch.int32), digest)

    monkeypatch.setattr(rehearsal, "synthetic_reservoir", rows)
    return made


def test_rows_are_made_once_for_each_weights(tmp_path: Path, quick: list[str]) -> None:
    weights = tmp_path / "neuropil.pt"
    for digest in ("a", "a", "b", "b", "a"):
        assert reservoir_for(weights, digest, NET, HIERARCHY).weights == digest
    assert quick == ["a", "b", "a"]
    assert reservoir_path(weights) == tmp_path / "neuropil.rehearsal.npz"


def test_a_damaged_file_of_rows_is_made_anew(tmp_path: Path, quick: list[str]) -> None:
    weights = tmp_path / "neuropil.pt"
    reservoir_for(weights, "a", NET, HIERARCHY)
    path = reservoir_path(weights)
    path.write_bytes(path.read_bytes()[:-30])
    assert reservoir_for(weights, "a", NET, HIERARCHY).weights == "a"
    assert quick == ["a", "a"] and Reservoir.load(path).weights == "a"


def test_where_nothing_can_be_written_rows_stay_in_memory(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rehearsal, "write_bytes", full)
    weights = tmp_path / "neuropil.pt"
    assert len(reservoir_for(weights, "a", NET, HIERARCHY).sets) == 1
    assert not reservoir_path(weights).exists()


# What a training run has to beat ---------------------------------------------------------------


def test_what_validates_and_the_gap_around_it_are_not_learned(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    sets = np.full((64, 64, 16), 1 << AXON, np.int32)
    source, _ = study.add_item("one", np.ones(sets.shape, np.uint8), VOXEL, sets)
    item = DataItem(source, HIERARCHY, 0.2, LabelCache(0), 0.0, 1)
    item.split = ItemSplit(item.shape, (((0, 20), (0, 64), (0, 16)),), None)
    learned = Training(item)
    assert learned.shape == (64, 64, 16)
    found = learned[:, :, :]
    kept = np.ones(sets.shape, bool)
    for part in item.split.blocked(((0, 64), (0, 64), (0, 16))):
        kept[part] = False
    assert kept.sum() == (64 - 20 - GAP[0]) * 64 * 16
    assert (found[kept] == 1 << AXON).all() and (found[~kept] == UNKNOWN).all()
    at = tuple(np.array([[3, 60, 31], [5, 2, 60], [1, 15, 8]]))
    assert np.array_equal(learned[at], found[at]) and learned[at].dtype == np.int32


def test_a_rehearsal_study_is_made_once_of_the_same_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.adaptation import baseline

    monkeypatch.setattr(baseline, "SIZE", (32, 32, 8))
    made: list[int] = []
    genuine = baseline.generate

    def generate(size: object, voxel: object, seed: int) -> object:
        made.append(seed)
        return genuine(size, voxel, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(baseline, "generate", generate)
    settings = Settings()
    root = rehearsal_study(tmp_path, settings)
    assert root == tmp_path / REHEARSAL and len(set(made)) == 3
    items = Study(root, HIERARCHY).items()
    assert sorted(i.record.split or "" for i in items) == ["train", "train", "val"]
    assert all(i.has_label("final") and i.has_label("instance") for i in items)
    assert rehearsal_study(tmp_path, settings) == root and len(made) == 3, "it is there already"
    monkeypatch.setattr(baseline, "hierarchy_of", lambda _: OTHER)
    assert rehearsal_study(tmp_path / "other", settings) is None
