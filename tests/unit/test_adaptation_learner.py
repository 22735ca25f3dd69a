"""From labels on disk to heads on disk: learned, refused, kept, dropped."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptation_cases import (
    AXON,
    DENDRITE,
    DIGEST,
    HIERARCHY,
    MYELIN,
    UNKNOWN,
    VOXEL,
    network,
    published,
    rows_of,
    striped,
    striped_study,
)

from lib.adaptation.background import Background
from lib.adaptation.learner import StudyLearner, fit_and_judge
from lib.adaptation.refit import RefitOptions
from lib.adaptation.rehearsal import Reservoir, reservoir_for, reservoir_path
from lib.configs.settings import AdaptationSettings
from lib.networks.digests import place_weights
from lib.networks.study_heads import BOUNDARY, StudyHeads, with_study_heads
from lib.prediction.classes import predict_classes
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.learned import (
    Learned,
    Stored,
    heads_path,
    load_heads,
    reset_heads,
    save_heads,
)
from lib.volumes.study import Study

SETTINGS = AdaptationSettings(steps=60, width=16, most_rows=4000)


def test_a_study_is_learned_and_better_where_nobody_painted(tmp_path: Path) -> None:
    known = np.zeros((64, 64, 8), bool)
    known[:, :40] = True
    study, item = striped_study(tmp_path, known)
    cache = FeatureCache(2**28)
    shelf = Shelf(cache, "weights", "image")
    learner = StudyLearner(study, SETTINGS, lambda _: shelf)
    base = published()
    stored = learner.learn(base)
    assert stored.heads is not None and stored.learned.used, stored.learned.sentence
    assert "in use" in stored.learned.sentence and "axon" in stored.learned.sentence
    assert stored.learned.voxels == int(known.sum()) and stored.learned.items == 1
    image, sets = striped()
    truth = np.where(sets == 1 << AXON, AXON, DENDRITE) + 1

    def share(net) -> float:
        found = predict_classes(net, image, VOXEL, base.inference, hierarchy=HIERARCHY, shelf=shelf)
        return float((found == truth)[:, 44:].mean())

    misses = cache.misses
    after = share(with_study_heads(base.net, stored.heads))
    assert cache.misses == misses, "the run after a refit finds its features"
    assert after > 0.9 and after > share(base.net) + 0.3
    kept = load_heads(tmp_path)
    assert kept is not None and kept.heads is not None and kept.learned == stored.learned
    assert learner.is_current(DIGEST) and not learner.is_current("1" * 64)
    assert item.has_label("final")


def test_labels_that_contradict_the_image_are_refused(tmp_path: Path) -> None:
    image, sets = striped()
    noise = np.random.default_rng(1).random(sets.shape) < 0.5
    study = Study(tmp_path, HIERARCHY)
    study.add_item(
        "noise", image, VOXEL, np.where(noise, 1 << AXON, 1 << DENDRITE).astype(np.int32)
    )
    good, _ = striped_study(tmp_path / "other")
    base = published()
    taught = StudyLearner(good, SETTINGS).learn(base)
    assert taught.heads is not None
    net = with_study_heads(base.net, taught.heads)
    stored = StudyLearner(study, SETTINGS).learn(published(net))
    assert not stored.learned.used and stored.heads is None
    assert stored.learned.sentence.startswith("Not used")


def test_rows_of_an_item_are_read_again_only_when_its_labels_change(tmp_path: Path) -> None:
    study, _ = striped_study(tmp_path)
    net = network()
    passes: list[int] = []
    net.backbone.register_forward_hook(lambda *_: passes.append(1))
    learner = StudyLearner(study, SETTINGS)
    learner.learn(published(net))
    first = len(passes)
    learner.learn(published(net))
    assert first and len(passes) == first
    image, sets = striped()
    study.add_item("stripes", image, VOXEL, sets, replace=True)
    assert not learner.is_current(DIGEST)
    stored = learner.learn(published(net))
    assert len(passes) == 2 * first and len(stored.history) == 2


def test_validation_items_are_not_learned_and_nothing_says_so(tmp_path: Path) -> None:
    image, sets = striped()
    study = Study(tmp_path, HIERARCHY)
    study.add_item("measured", image, VOXEL, sets, split="val")
    study.add_item("blank", image, VOXEL)
    learner = StudyLearner(study, SETTINGS)
    assert learner.labels() == ""
    stored = learner.learn(published())
    assert not stored.learned.used and stored.learned.sentence.startswith("Nothing to learn")


def test_damaged_heads_are_named_and_reset_removes_them(tmp_path: Path) -> None:
    heads = StudyHeads(8, {"semantic": 12, "coarse": 5}, 4)
    learned = Learned("Learned.", True, DIGEST, "labels")
    save_heads(tmp_path, Stored(learned, heads, (learned,)))
    found = load_heads(tmp_path)
    assert found is not None and found.heads is not None and found.history == (learned,)
    assert all(
        torch.equal(a, b)
        for a, b in zip(heads.state_dict().values(), found.heads.state_dict().values(), strict=True)
    )
    path = heads_path(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"heads\.pt.*--reset"):
        load_heads(tmp_path)
    assert reset_heads(tmp_path) and not reset_heads(tmp_path)
    assert load_heads(tmp_path) is None and not list(path.parent.iterdir())


def test_heads_of_before_filters_are_read(tmp_path: Path) -> None:
    heads = StudyHeads(8, {"semantic": 12}, 4)
    wide = StudyHeads(8, {BOUNDARY: 1}, 4, beside=18)
    learned = Learned("Learned.", True, DIGEST, "labels")
    save_heads(tmp_path, Stored(learned, heads, grouping=wide))
    found = load_heads(tmp_path)
    assert found is not None and found.grouping is not None and found.grouping.beside == 18
    data = torch.load(heads_path(tmp_path), weights_only=True)
    data |= {"format": 2, "grouping": None}
    del data["heads"]["beside"]
    written = io.BytesIO()
    torch.save(data, written)
    place_weights(heads_path(tmp_path), written.getvalue())
    old = load_heads(tmp_path)
    assert old is not None and old.heads is not None and old.heads.beside == 0
    assert torch.equal(old.heads.inner.weight, heads.inner.weight)


def test_a_reservoir_belongs_to_its_weights(tmp_path: Path) -> None:
    net = network()
    weights = tmp_path / "neuropil.pt"
    features = torch.ones((3, net.feature_channels + FILTERS)).half()
    rows = Reservoir(features, torch.tensor([1, 2, UNKNOWN]).int(), DIGEST)
    rows.save(reservoir_path(weights))
    found = reservoir_for(weights, DIGEST, net, HIERARCHY)
    assert torch.equal(found.features, rows.features) and torch.equal(found.sets, rows.sets)
    Reservoir(features[:, :-FILTERS], rows.sets, DIGEST).save(reservoir_path(weights))
    made = reservoir_for(weights, DIGEST, net, HIERARCHY)
    assert len(made.sets) > 3, "rows without filter responses are made anew"
    reservoir_path(weights).write_bytes(b"junk")
    with pytest.raises(ValueError, match="rehearsal"):
        Reservoir.load(reservoir_path(weights))


def test_background_work_is_done_once_for_all_that_ask_meanwhile() -> None:
    import threading

    started, go, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append(1)
        started.set()
        assert go.wait(10)
        if len(runs) == 2:
            raise ValueError("second")

    background = Background(work, "test")
    first = background.ask()
    assert started.wait(10) and background.busy and not background.wait(first, 0.0)
    for _ in range(5):
        last = background.ask()
    go.set()
    assert background.wait(last, 10) and len(runs) == 2 and not background.busy
    assert background.failed == "ValueError: second"
    assert background.wait(background.ask(), 10) and background.failed == ""


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_labels_at_random_are_never_used(seed: int) -> None:
    """Whatever the features, the number of classes and how much of the rest is known."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn((1600, 4), generator=draw)
    share = torch.rand(1, generator=draw).item()
    classes = (AXON, DENDRITE, MYELIN)[: 2 + seed % 2]
    chosen = torch.randint(len(classes), (1600,), generator=draw)
    sets = 1 << torch.tensor(classes)[chosen]
    sets[torch.rand(1600, generator=draw) < share / 2] = UNKNOWN
    net = network(seed)
    features = features @ torch.randn((4, net.feature_channels), generator=draw)
    options = RefitOptions(steps=60, width=16, seed=seed, beside=0)
    rows = rows_of(features, sets, blocks=12 + seed % 30)
    heads, verdict = fit_and_judge(rows, net, HIERARCHY, published(net).reservoir, options)
    assert heads is None and not verdict.passed, verdict
