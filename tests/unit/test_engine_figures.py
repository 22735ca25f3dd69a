"""Figures of a run: what prompts buy, what a score is made of, what is logged and written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from lib.engine.log import LARGEST_WEIGHT, RESIDUAL_RATIO, step_scalars
from lib.engine.options import RunResult
from lib.engine.prompt_gain import PromptScores, _iou, embedding_mask
from lib.engine.prompting import fractionary_samples, prompt_generators
from lib.engine.publish import LARGEST_LOSS, Publisher
from lib.engine.report import ReportWriter, finite_or_none
from lib.engine.step import StepResult
from lib.engine.validation import ValidationReport, _report, _Tally
from lib.metrics.class_scores import ClassScores
from lib.networks.model import build_network
from lib.prompts.points import NEGATIVE, POSITIVE, PointPrompts

NOBODY = PromptScores(math.nan, math.nan, 0)


def prompts(*points: tuple[int, int, int], signs: list[int]) -> PointPrompts:
    count = len(points)
    return PointPrompts(
        torch.tensor(points).reshape(1, count, 3),
        torch.tensor([signs], dtype=torch.long).reshape(1, count),
        torch.zeros((1, count), dtype=torch.long),
        torch.zeros((1, count), dtype=torch.bool),
    )


def line(*values: float) -> torch.Tensor:
    """(1, 1, N, 1, 1) an embedding along x."""
    return torch.tensor(values).view(1, 1, -1, 1, 1)


def test_what_lies_near_a_point_in_the_embedding_is_its_object() -> None:
    found = embedding_mask(line(0.0, 0.4, 1.0, 3.0), prompts((0, 0, 0), signs=[POSITIVE]), 1.0)
    assert found.shape == (4, 1, 1)
    assert found.flatten().tolist() == [True, True, False, False], "nearer than the margin"


def test_a_negative_point_takes_what_is_nearer_to_it() -> None:
    both = prompts((0, 0, 0), (3, 0, 0), signs=[POSITIVE, NEGATIVE])
    found = embedding_mask(line(0.0, 0.4, 0.5, 1.0), both, 5.0)
    assert found.flatten().tolist() == [True, True, False, False], "in the middle it is neither's"


def test_any_of_several_points_will_do_and_none_finds_nothing() -> None:
    two = prompts((0, 0, 0), (3, 0, 0), signs=[POSITIVE, POSITIVE])
    found = embedding_mask(line(0.0, 5.0, 9.5, 10.0), two, 1.0)
    assert found.flatten().tolist() == [True, False, True, True]
    only_negative = prompts((0, 0, 0), signs=[NEGATIVE])
    assert not embedding_mask(line(0.0, 1.0), only_negative, 9.0).any()


def test_a_clicked_object_is_scored_on_known_voxels() -> None:
    target = torch.tensor([[True, True, True, False, False]])
    known = torch.tensor([[True, True, False, True, True]])
    sampled = cast(Any, SimpleNamespace(known=known, target=target))
    assert _iou(torch.tensor([True, False, False, True, False]), sampled) == pytest.approx(1 / 3)
    nothing = cast(Any, SimpleNamespace(known=~known & False, target=target))
    assert _iou(torch.tensor([True] * 5), nothing) == 0.0


def test_the_gain_of_prompts_is_a_difference_of_means() -> None:
    scores = PromptScores.of([(0.8, 0.5), (0.6, 0.7)])
    assert (scores.with_prompts, scores.without_prompts) == pytest.approx((0.7, 0.6))
    assert scores.gain == pytest.approx(0.1) and scores.objects == 2
    nobody = PromptScores.of([])
    assert math.isnan(nobody.gain) and nobody.objects == 0


def report(are: float = 0.25, with_prompts: float = 0.6) -> ValidationReport:
    scores = ClassScores(HIERARCHY)
    scores.update_sets(np.array([[[1 << 2, 1 << 3]]], np.int32), np.array([[[1 << 2, 1 << 2]]]))
    return ValidationReport(
        scores.result(), {"total": 1.5}, are, PromptScores(with_prompts, 0.5, 1), 1
    )


def test_the_score_is_the_mean_of_what_can_be_measured() -> None:
    whole = report()
    mean_iou = whole.classes.mean_iou
    assert whole.score == pytest.approx((mean_iou + 0.75 + 0.6) / 3)
    assert report(are=math.nan).score == pytest.approx((mean_iou + 0.6) / 2)
    assert report(math.nan, math.nan).score == pytest.approx(mean_iou)
    empty = ValidationReport(ClassScores(HIERARCHY).result(), {}, math.nan, NOBODY, 0)
    assert math.isnan(empty.score)


def test_figures_that_cannot_be_measured_are_left_out_and_the_rest_is_json() -> None:
    figures = report(are=math.nan).scalars()
    assert "val/are" not in figures and figures["val/prompt_gain"] == pytest.approx(0.1)
    assert figures["val/total"] == 1.5 and figures["val/iou/dendrite"] == pytest.approx(0.5)
    assert "val/iou/myelin" not in figures, "nothing of it is known"
    told = json.loads(json.dumps(report(math.nan, math.nan).to_dict(), allow_nan=False))
    assert told["places"] == 1 and "val/are" not in told["figures"]


def test_parts_of_several_processes_are_one_report() -> None:
    tallies = []
    for error, loss in ((0.2, 1.0), (math.nan, 3.0)):
        scores = ClassScores(HIERARCHY)
        scores.update_sets(np.full((1, 1, 2), 1 << 2, np.int32), np.full((1, 1, 2), 1 << 2))
        tallies.append(_Tally(scores, [{"total": loss}], [error], [(loss / 4, 0.5)]))
    found = _report(tallies, HIERARCHY)
    assert found.losses == {"total": 2.0} and found.places == 2
    assert found.are == pytest.approx(0.2), "a place without pairs says nothing"
    assert found.prompts == PromptScores(0.5, 0.5, 2)
    assert found.classes.by_class["dendrite"].support == 4
    assert math.isnan(_report([], HIERARCHY).are)


def step_result(loss: float, ratio: float | None, weight: float) -> StepResult:
    made = SimpleNamespace(
        loss=torch.tensor(loss),
        losses={"automatic": {"total": torch.tensor(loss)}},
        residual_ratio=None if ratio is None else torch.tensor(ratio),
        largest_weight=torch.tensor(weight),
    )
    return cast(StepResult, made)


def test_a_steps_figures_are_means_over_its_batches_and_the_largest_weight() -> None:
    found = step_scalars([step_result(1.0, 0.5, 7.0), step_result(3.0, None, 4.0)])
    plain = {key: float(value) for key, value in found.items()}
    assert plain == {
        "train/loss": 2.0, "train/automatic/total": 2.0, RESIDUAL_RATIO: 0.5, LARGEST_WEIGHT: 7.0
    }  # fmt: skip


def test_samples_with_anything_unknown_are_fractionary() -> None:
    sets = torch.full((4, 2, 2, 2), 1 << 3)
    ids = torch.ones((4, 2, 2, 2), dtype=torch.long)
    sets[1, 0, 0, 0] = HIERARCHY.unknown
    ids[2, 1, 1, 1] = -1
    ids[3] = 0
    batch = cast(Any, {"class_sets": sets, "instance": ids})
    assert fractionary_samples(batch, HIERARCHY).tolist() == [False, True, True, False]


def test_each_place_of_each_step_draws_prompts_of_its_own() -> None:
    def draw(seed: int, step: int, place: int) -> float:
        (generator,) = prompt_generators(seed, step, [place])
        return float(torch.rand(1, generator=generator))

    drawn = [draw(s, t, p) for s in (0, 1) for t in range(5) for p in range(4)]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [draw(s, t, p) for s in (0, 1) for t in range(5) for p in range(4)]
    pair = prompt_generators(1, 4, [2, 3])
    assert [float(torch.rand(1, generator=g)) for g in pair] == drawn[-2:]
    assert draw(2**62, 10**6, 10**3) >= 0, "seeds stay what a generator takes"


def test_a_run_is_written_down_without_nan(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, active=True)
    writer.result(RunResult(steps=4, best=math.nan, reason="none"))
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["steps"] == 4 and told["best"] is None and told["figures"] == {}
    assert told["published"] is False and told["stopped"] is False and told["seconds"] >= 0
    writer.validation(report(), cast(Any, SimpleNamespace(step=7)))
    assert json.loads((tmp_path / "validation.json").read_text())["step"] == 7
    quiet = ReportWriter(tmp_path / "quiet", active=False)
    quiet.result(RunResult())
    quiet.validation(report(), cast(Any, SimpleNamespace(step=7)))
    assert not (tmp_path / "quiet").exists()
    assert [finite_or_none(v) for v in (1.5, math.inf, math.nan, None)] == [1.5, None, None, None]


@pytest.mark.parametrize(
    ("fall", "published"), [(LARGEST_LOSS + 1e-3, False), (LARGEST_LOSS - 1e-3, True), (-0.1, True)]
)
def test_no_single_figure_may_fall_while_the_score_rises(
    tmp_path: Path, fall: float, published: bool
) -> None:
    settings = tiny_settings()
    net = build_network(settings.model, settings.loss, HIERARCHY)
    known = {"objects": 0.5, "gone": 0.9}
    publisher = Publisher(
        tmp_path / "w.pt", settings, HIERARCHY, lambda _: 0.5, torch.device("cpu"),
        parts=lambda: known,
    )  # fmt: skip
    done, why = publisher.offer(net.state_dict(), 0.5, {}, known)
    assert done and "nothing comparable" in why
    parts = {"objects": 0.5 - fall, "new": 0.1}
    done, why = publisher.offer(net.state_dict(), 0.6, {}, parts)
    assert done == published
    if not published:
        assert why == f"objects would be {0.5 - fall:.4f}, before 0.5000"
