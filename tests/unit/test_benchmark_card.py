"""The model card's tables come from evaluations, with aims and what is missed."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.card import (
    BEGIN,
    END,
    card,
    main_table,
    put_into,
    read,
    travel_table,
    worst_pictures,
)
from lib.evaluation.worst_cases import WorstCases
from lib.metrics.spread import spread_of
from lib.volumes.atomic import write_json


def evaluation(path: Path, iou: float, digest: str = "a" * 64, **more: dict) -> Path:
    spread = spread_of([iou - 0.1, iou + 0.1])
    assert spread is not None
    score = {"iou": iou, "dice": 0.5, "support": 1200}
    classes = {
        "mean_iou": iou,
        "classes": {"mitochondria": score},
        "sets": {},
        "spread": {"classes": {"mitochondria": {"iou": spread.to_dict()}}},
    }
    data = {
        "about": {"weights": {"sha256": digest}},
        "data_sets": {"vnc": {"classes": classes}, **more},
    }
    path.write_text(json.dumps(data))
    return path


def test_a_figure_is_shown_with_its_spread_and_aim(tmp_path: Path) -> None:
    objects = {"are": 0.05, "spread": {}}
    found = read([evaluation(tmp_path / "one.json", 0.5, fib25={"objects": objects})])
    lines = main_table(found["data_sets"]).splitlines()
    assert lines[2:] == [
        "| vnc | mitochondria, IoU | 0.500 | 0.50 ± 0.10 (0.45, 0.50, 0.55) | 2 sections | ≥ 0.78 |"
        " missed by 0.28 |",
        "| fib25 | `instances`, adapted Rand error | 0.050 |  |  | ≤ 0.10 | reached |",
    ]
    assert "| vnc | mitochondria | 0.500 | 0.500 |" in card(found, None)


def test_later_figures_count_and_weights_must_agree(tmp_path: Path) -> None:
    clicks = {"vnc": {"clicks": {"iou_after": {"1": 0.8}}}}
    first, second = evaluation(tmp_path / "1.json", 0.5), evaluation(tmp_path / "2.json", 0.9)
    assert "0.900" in main_table(read([first, second])["data_sets"])
    second.write_text(json.dumps({**json.loads(first.read_text()), "data_sets": clicks}))
    assert set(read([first, second])["data_sets"]["vnc"]) == {"classes", "clicks"}
    other = evaluation(tmp_path / "3.json", 0.9, digest="b" * 64)
    with pytest.raises(SystemExit, match="different weights"):
        read([first, other])


def test_the_worst_case_of_each_figure_is_shown(tmp_path: Path) -> None:
    worst = WorstCases(2)
    for value in (0.3, 0.2):
        worst.offer("vnc", "class IoU", value, "vnc-val", "section 1", lambda: np.zeros((2, 2, 3)))
    worst.write(tmp_path / "docs" / "worst")
    text = worst_pictures(tmp_path / "docs" / "worst", tmp_path / "model" / "README.md")
    assert "vnc: class IoU 0.200 (vnc-val, section 1)" in text and "0.300" not in text
    assert "![vnc-val](../docs/worst/vnc-class_iou-1.png)" in text


def test_only_what_lies_between_the_marks_changes(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(path, "new")
    assert path.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    path.write_text("no marks")
    with pytest.raises(SystemExit, match="no marks"):
        put_into(path, "new")


def test_the_shipped_card_has_a_place_for_the_figures() -> None:
    text = (Path(__file__).parents[2] / "model" / "README.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def test_changed_images_are_compared_with_the_unchanged_one(tmp_path: Path) -> None:
    changes = [["as it is", {"b IoU": 0.5, "a ARE": 0.2}], ["a change", {"b IoU": 0.4}]]
    path = tmp_path / "travel.json"
    write_json(path, {"columns": ["b IoU", "a ARE"], "changes": changes, "edge": 0})
    assert travel_table(path).splitlines()[-3:] == [
        "|---|--:|--:|",
        "| as it is | 0.500 (100%) | 0.200 (+0.000) |",
        "| a change | 0.400 (80%) |  |",
    ]
