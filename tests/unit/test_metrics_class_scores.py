"""Class scores against plain per-voxel loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.labels.hierarchy import load_hierarchy
from lib.metrics.class_scores import ClassScores

HIERARCHY = load_hierarchy()
UNKNOWN = HIERARCHY.unknown
CLASSES = HIERARCHY.num_classes


def random_sets(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Single classes, groups, arbitrary sets and unknown voxels, mixed."""
    choices = [1 << c for c in range(CLASSES)] + list(HIERARCHY.group_sets) + [UNKNOWN, 0b110001]
    return rng.choice(np.array(choices, np.int32), shape)


def test_fully_known_labels_give_the_textbook_figures() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    scores = ClassScores(HIERARCHY)
    scores.update((1 << truth).astype(np.int32), guess)
    report = scores.result()
    assert report.accuracy == report.set_accuracy == np.mean(truth == guess)
    for c in range(4):
        both = np.sum((truth == c) & (guess == c))
        either = np.sum((truth == c) | (guess == c))
        name = HIERARCHY.class_names[c]
        assert report.by_class[name].iou == report.exact[name].iou == both / either
        dice = 2 * both / (np.sum(truth == c) + np.sum(guess == c))
        assert report.by_class[name].dice == pytest.approx(dice, abs=1e-15)
        assert [report.confusion[c, d] for d in range(4)] == [
            np.sum((truth == c) & (guess == d)) for d in range(4)
        ]
    assert report.mean_iou == pytest.approx(
        np.mean([report.by_class[HIERARCHY.class_names[c]].iou for c in range(4)]), abs=1e-15
    )


@given(seed=st.integers(0, 10_000))
def test_sets_count_as_a_plain_loop_counts_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = random_sets(rng, (5, 6)), rng.integers(0, CLASSES, (5, 6))
    scores = ClassScores(HIERARCHY)
    scores.update(truth, guess)
    report = scores.result()
    right = known = 0
    for s, p in zip(truth.ravel().tolist(), guess.ravel().tolist(), strict=True):
        known += s != UNKNOWN
        right += s != UNKNOWN and bool(s >> p & 1)
    assert report.voxels == known
    assert math.isnan(report.set_accuracy) if not known else report.set_accuracy == right / known
    for c, name in enumerate(HIERARCHY.class_names):
        hits = alarms = misses = 0
        for s, p in zip(truth.ravel().tolist(), guess.ravel().tolist(), strict=True):
            decided_yes, decided_no = s == 1 << c, not s >> c & 1
            hits += decided_yes and p == c
            misses += decided_yes and p != c
            alarms += decided_no and p == c
        found = report.by_class[name]
        assert (found.hits, found.false_alarms, found.misses) == (hits, alarms, misses)


def test_unknown_voxels_change_nothing() -> None:
    rng = np.random.default_rng(1)
    truth, guess = random_sets(rng, (300,)), rng.integers(0, CLASSES, 300)
    scores = ClassScores(HIERARCHY)
    scores.update(truth, guess)
    other = ClassScores(HIERARCHY)
    other.update(truth, np.where(truth == UNKNOWN, (guess + 1) % CLASSES, guess))
    assert scores.counts == other.counts


def test_patches_merge_to_the_whole_in_any_way() -> None:
    rng = np.random.default_rng(2)
    truth, guess = random_sets(rng, (400,)), rng.integers(0, CLASSES, 400)
    whole, first, second, gathered = (ClassScores(HIERARCHY) for _ in range(4))
    whole.update(truth, guess)
    first.update(truth[:100], guess[:100])
    second.update(truth[100:], guess[100:])
    gathered.add_rows(first.rows())
    gathered.add_rows(second.rows())
    first.merge(second)
    assert whole.counts == first.counts == gathered.counts


def test_a_group_as_prediction_is_right_where_it_holds_the_class() -> None:
    axon, neuron = HIERARCHY.set_named("axon"), HIERARCHY.set_named("neuron part")
    glia = HIERARCHY.set_named("glia")
    scores = ClassScores(HIERARCHY)
    scores.update_sets(np.array([axon, axon, neuron, glia]), np.array([neuron, axon, axon, neuron]))
    report = scores.result()
    assert report.set_accuracy == 3 / 4
    assert report.by_set["neuron_part"].hits == 3
    assert report.by_set["neuron_part"].false_alarms == 1
    assert report.by_class["axon"].misses == 1  # a group does not name the class


def test_nothing_known_gives_no_figures_and_valid_json() -> None:
    scores = ClassScores(HIERARCHY)
    scores.update(np.full((2, 2), UNKNOWN, np.int32), np.zeros((2, 2), int))
    report = scores.result()
    assert report.voxels == 0 and math.isnan(report.mean_iou)
    assert json.loads(json.dumps(report.to_dict()))["mean_iou"] is None


def test_not_predicted_is_wrong_and_bad_input_is_refused() -> None:
    scores = ClassScores(HIERARCHY)
    scores.update(np.array([1, 1]), np.array([0, -1]))
    assert scores.result().set_accuracy == 0.5
    with pytest.raises(ValueError, match="shape"):
        scores.update(np.array([1, 1]), np.array([0]))
    with pytest.raises(ValueError, match="12 is outside"):
        scores.update(np.array([1]), np.array([12]))


@given(seed=st.integers(0, 10_000))
def test_one_class_against_the_rest_counts_every_labelled_voxel(seed: int) -> None:
    """A label that leaves the class open counts as the rest: what users see painted."""
    rng = np.random.default_rng(seed)
    truth, guess = random_sets(rng, (5, 6)), rng.integers(-1, CLASSES, (5, 6))
    scores = ClassScores(HIERARCHY)
    scores.update(truth, guess)
    report = scores.result()
    known = truth != UNKNOWN
    for c, name in enumerate(HIERARCHY.class_names):
        true, painted = (truth == 1 << c) & known, (guess == c) & known
        found = report.against_rest[name]
        assert found.hits == (true & painted).sum() and found.misses == (true & ~painted).sum()
        assert found.false_alarms == (painted & ~true).sum()
        assert found.false_alarms >= report.by_class[name].false_alarms


def test_what_is_painted_over_open_labels_shows_against_the_rest() -> None:
    """Axons whose background may hold axons: painting it costs nothing by sets, and shows."""
    axon, open_ = HIERARCHY.set_named("axon"), UNKNOWN & ~HIERARCHY.set_named("myelin")
    truth = np.array([axon] * 40 + [open_] * 60, np.int32)
    scores = ClassScores(HIERARCHY)
    scores.update(truth, np.full(100, HIERARCHY.class_names.index("axon")))
    report = scores.result()
    assert report.by_class["axon"].iou == 1.0 and report.against_rest["axon"].iou == 0.4
    assert report.to_dict()["against_rest"] == {
        "axon": {"iou": 0.4, "dice": pytest.approx(80 / 140), "support": 40}
    }
