"""A whole session of annotation: every part of the loop together, and the figure rises."""

from pathlib import Path

import numpy as np
import pytest

from lib.annotation.versions import versions
from lib.configs.load import load_settings
from lib.demo.session import (
    SESSION_SETTINGS,
    WORKED_ON,
    SessionPlan,
    paint_region,
    simulate_session,
)
from lib.labels.hierarchy import load_hierarchy
from lib.queries.select import Query
from lib.synthetic.generate import generate
from lib.volumes.study import Study


def test_a_session_teaches(tmp_path: Path) -> None:
    plan = SessionPlan(tmp_path / "session", rounds=2, regions=2, steps=30, size=(80, 80, 20))
    said: list[str] = []
    first, last = simulate_session(plan, load_settings(SESSION_SETTINGS), said.append)
    assert last.mean_iou >= first.mean_iou, "a run publishes what is better, or nothing"
    assert 0 < first.annotated_share < last.annotated_share < 1
    assert first.click_iou is None and last.click_iou is not None
    assert first.refit_iou is None and last.refit_iou is not None
    assert last.refit_iou > first.mean_iou + 0.02, "a refit teaches within the session"
    assert sum(sentence.startswith("refitted") for sentence in said) == 1 and len(said) == 4
    study = Study(plan.folder / "study", load_hierarchy())
    assert len(versions(study, WORKED_ON)) == 2 * plan.regions


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(ValueError, match="empty or new folder"):
        simulate_session(SessionPlan(tmp_path), load_settings(SESSION_SETTINGS))


def test_regions_are_painted_as_segments() -> None:
    truth = generate((48, 48, 8), (8.0, 8.0, 40.0), 3)
    box = ((8, 40), (8, 40), (2, 6))
    query = Query("x", box, (24, 24, 4), "random", 0.0, "", 0.0)
    painted, names = paint_region(truth, query, load_hierarchy().class_names)
    inside = np.zeros(painted.shape, bool)
    inside[8:40, 8:40, 2:6] = True
    assert not painted[~inside].any()
    assert (painted[inside] > 0).sum() == (truth.fine[inside] >= 0).sum()
    for value, name in enumerate(names, 1):
        where = painted == value
        (class_id,) = np.unique(truth.fine[where])
        (number,) = np.unique(truth.instance[where])
        expected = load_hierarchy().class_names[class_id]
        assert name == (f"{expected} {number}" if number > 0 else expected)
