"""What corrective clicks mean, fitted to simulated annotators: gains, choices and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_benchmark_fits import study, weights

from benchmarks import fit_clicks
from benchmarks.fit_clicks import Decision, Example, answered, fit_meaning, gains_of
from lib.clicks.changes import Answer, Change, Correction
from lib.clicks.cheapest import Pieces
from lib.clicks.meaning import FEATURES, Meaning, meaning_of
from lib.clicks.scale import Depth
from lib.metrics.clicks import Click, mask_iou
from lib.networks.weights import load_network


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_gains_are_those_of_the_answers_that_changes_make(seed: int, adds: bool) -> None:
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 7, (5, 4, 3)).astype(np.uint32)
    pieces = Pieces(
        ids, np.array([0, 1, 1, 1, 2, 2, 2]), *(np.zeros((0, 2), np.int64), *[np.zeros(0)] * 2)
    )
    chosen = draw.random(7) < 0.5
    chosen[0] = False
    known = draw.random(ids.shape) < 0.8
    truth = known & (draw.random(ids.shape) < 0.5)
    answer = Answer(pieces, 1, chosen)
    some = draw.random(7) < 0.5
    some[0] = False
    changes = [Change(2, some), Change(0, voxels=draw.random(ids.shape) < 0.3)]
    at = Correction((0, 0, 0), adds, Depth(1, 1), Depth(1, 1), 1, np.zeros(0, np.int64))
    found = gains_of(answer, at, changes, truth, known)
    for gain, change in zip(found, changes, strict=True):
        other = Answer(pieces, 1, chosen)
        other.take(change, adds)
        if ((answer.mask | truth) & known).any() and ((other.mask | truth) & known).any():
            by_masks = mask_iou(truth, other.mask, known) - mask_iou(truth, answer.mask, known)
            assert gain == pytest.approx(by_masks, abs=1e-6)


def decision(gains: list[float], told: int) -> Decision:
    """One whose first feature tells the best change, and the others nothing."""
    seen = np.random.default_rng(told).normal(size=(len(gains), FEATURES)).astype(np.float32)
    seen[:, 0] = np.arange(len(gains)) == int(np.argmax(gains))
    return Decision("one", seen, np.array(gains, np.float32))


def score(meaning: Meaning, decisions: list[Decision]) -> float:
    assert meaning.worth is not None
    return float(np.mean([d.gains[meaning.worth.outputs(d.seen).argmax()] for d in decisions]))


def test_a_model_learns_what_tells_the_gain_and_shuns_losses() -> None:
    draw = np.random.default_rng(0)
    decisions = [
        decision(draw.normal(0, 0.2, int(draw.integers(2, 6))).tolist(), n) for n in range(240)
    ]
    best = float(np.mean([d.gains.max() for d in decisions[200:]]))
    assert score(fit_meaning(decisions[:200], steps=300), decisions[200:]) > 0.8 * best
    # one change brings 0.3 or loses 0.2, by chance; the other nothing: a loss counts twice
    seen = np.zeros((2, FEATURES), np.float32)
    seen[1, 0] = 1.0
    risky = [
        Decision("one", seen, np.array([0.0, gain], np.float32))
        for gain in (0.3, -0.2)
        for _ in "12345"
    ]
    model = fit_meaning(risky, steps=200)
    assert model.worth is not None and model.worth.outputs(seen).argmax() == 0


def example() -> Example:
    """Two halves found as one object, and a third part beside it."""
    ids = np.repeat(np.array([1, 2, 3], np.uint32), 12)
    ids = np.ascontiguousarray(np.broadcast_to(ids[:, None, None], (36, 12, 12)))
    pieces = Pieces(
        ids, np.array([0, 1, 1, 2]), np.array([[1, 2], [2, 3]]), np.array([1.0, -2.0]),
        np.array([144.0, 144.0]),
    )  # fmt: skip
    truth = np.where(ids == 1, 5, 6).astype(np.int64)
    objects = pieces.objects.astype(np.uint32)[ids]
    return Example("fib25block-train", 0, truth, objects, pieces, (10.0, 10.0, 10.0))


def test_sessions_are_answered_as_the_app_answers_and_only_asked_objects_count() -> None:
    box = example()
    assert box.group == "fib25", "two files of one volume are of one data set"
    assert box.asked(np.array([1], np.uint32)).edges.tolist() == [[1, 2]]
    assert box.asked(np.array([1, 2], np.uint32)).edges.tolist() == [[1, 2], [2, 3]]

    def most(answer: Answer, at: Correction, changes: Any) -> int:
        return len(changes) - 1

    first, against = Click((5, 6, 6), True), Click((18, 6, 6), False)
    assert answered(box, [first], most)[:24].all()
    mask = answered(box, [first, against], most)
    assert mask[:12].all() and not mask[12:].any()
    found = [d for seed in range(3) for d in fit_clicks.decisions_of(box, 2, seed)]
    assert found and all(d.gains.shape == (len(d.seen),) for d in found)
    quality = list(fit_clicks.qualities(box, most, 2, 0, clicks=3))
    assert len(quality) == 2 and all(len(q) == 3 for q in quality)


def test_what_is_fitted_stays_in_the_file(tmp_path: Path, capsys: Any) -> None:
    path, root = weights(tmp_path), study(tmp_path)
    before = load_network(path)[0].state_dict()
    said = [str(root), "--weights", str(path), "--objects", "2", "--boxes", "1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit_clicks, "LEAST", 50)
        patched.setattr(fit_clicks, "CLICKS", 3)
        assert fit_clicks.main(said) == 0
        net, _, _, meta = load_network(path)
        assert meta["step"] == 7 and meaning_of(net).worth is not None
        assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
        with pytest.raises(SystemExit):
            fit_clicks.main([*said, "--check"])
    assert "two at least" in capsys.readouterr().err
