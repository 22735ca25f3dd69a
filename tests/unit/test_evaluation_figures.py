"""Figures of items pooled by data set, and their tables, against values computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lib.evaluation.figures import Evaluation, ItemFigures, pool_objects
from lib.evaluation.table import evaluation_table
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.class_scores import ClassScores
from lib.metrics.click_scores import ClickScores
from lib.metrics.object_scores import Matches, ObjectReport
from lib.metrics.speckle import Speckle
from lib.metrics.spread import Spread, spread_of

H = load_hierarchy()
AXON, SOMA = (H.class_names.index(n) for n in ("axon", "soma"))
REPORT = ObjectReport(
    voxels=100, true_objects=4, predicted_objects=5, are=0.1, voi_split=0.5, voi_merge=0.2,
    matches={0.5: Matches(3, 2, 1), 0.75: Matches(2, 3, 2)}, largest_share=0.4,
)  # fmt: skip


def scores(truth: list[int], guess: list[int]) -> ClassScores:
    """Voxels of one true class each, -1 unknown."""
    found = ClassScores(H)
    sets = np.array([H.unknown if t < 0 else 1 << t for t in truth], np.int32)
    found.update(sets, np.array(guess))
    return found


def clicks(*sessions: list[float]) -> ClickScores:
    """Sessions of clicks."""
    found = ClickScores()
    for quality in sessions:
        found.update(quality)
    return found


def figures(name: str, data_set: str = "d", **more: Any) -> ItemFigures:
    """Of an item of which nothing is known but what is given."""
    return ItemFigures(name, data_set, **({"classes": None, "objects": None} | more))


def table_rows(found: Evaluation, head: str) -> dict[str, list[str]]:
    """Rows of the table with this first heading, by their first two cells."""
    tables = [part.splitlines() for part in evaluation_table(found).split("\n\n")]
    (lines,) = (lines for lines in tables if lines[0].startswith(f"| {head} |"))
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {len(cells[0])}, "as many cells as headings"
    return {" ".join(row[:2]).strip(): row for row in cells[2:]}


def test_classes_of_a_data_set_are_pooled_over_voxels() -> None:
    one = scores([AXON] * 8 + [SOMA] * 2, [AXON] * 8 + [AXON] * 2)
    two = scores([AXON] * 2, [SOMA] * 2)
    found = Evaluation([figures("a", classes=one), figures("b", classes=two)]).to_dict()
    pooled = found["data_sets"]["d"]["classes"]
    assert pooled["voxels"] == 12 and pooled["accuracy"] == 8 / 12
    assert pooled["classes"]["axon"]["iou"] == 8 / 12, "8 hits, 2 false alarms, 2 misses"
    assert pooled["classes"]["soma"] == {"iou": 0.0, "dice": 0.0, "support": 2}
    assert found["items"]["a"]["classes"]["accuracy"] == 0.8
    assert found["items"]["b"]["classes"]["accuracy"] == 0.0
    assert one.counts.total() == 10, "pooling leaves the item's own counts"


def test_data_sets_are_told_apart_in_the_order_they_came() -> None:
    items = [figures("a", "y", objects=REPORT), figures("b", "x"), figures("c", "y")]
    found = Evaluation(items, left_out=["d.nii: cut short"]).to_dict()
    assert list(found["data_sets"]) == ["y", "x"] and list(found["items"]) == ["a", "b", "c"]
    assert found["items"]["c"] == {"data_set": "y"} and found["data_sets"]["x"] == {}
    assert found["left_out"] == ["d.nii: cut short"]
    assert json.loads(json.dumps(found)) == found


def test_objects_are_weighed_by_their_voxels_and_matches_added_up() -> None:
    other = replace(
        REPORT, voxels=300, true_objects=1, are=0.3, voi_split=0.1, voi_merge=1.0,
        matches={0.5: Matches(1, 0, 0), 0.75: Matches(0, 1, 1)}, largest_share=0.9,
    )  # fmt: skip
    found = pool_objects([REPORT, other])
    assert (found.voxels, found.true_objects, found.predicted_objects) == (400, 5, 10)
    assert found.are == pytest.approx((0.1 + 3 * 0.3) / 4)
    assert found.voi_split == pytest.approx((0.5 + 3 * 0.1) / 4)
    assert found.voi_merge == pytest.approx((0.2 + 3 * 1.0) / 4)
    assert found.matches == {0.5: Matches(4, 2, 1), 0.75: Matches(2, 4, 3)}
    assert found.largest_share == 0.9
    assert pool_objects([REPORT]) == REPORT


@pytest.mark.parametrize("empty_first", [True, False])
def test_an_item_without_predicted_objects_does_not_hide_what_was_merged(empty_first) -> None:
    """Its largest share is no number, and would win or lose by its place in the list."""
    nothing = replace(REPORT, predicted_objects=0, largest_share=math.nan)
    reports = [nothing, REPORT] if empty_first else [REPORT, nothing]
    assert pool_objects(reports).largest_share == 0.4
    assert math.isnan(pool_objects([nothing, nothing]).largest_share)
    assert pool_objects([nothing, nothing]).to_dict()["largest_share"] is None


def test_figures_spread_over_parts_and_objects() -> None:
    item = figures(
        "a", objects=REPORT, are_parts=(0.1, 0.3, math.nan), overlaps=(0.2, 0.4, 0.9),
        classes=scores([AXON] * 4, [AXON] * 4),
        class_parts=(scores([AXON] * 2, [AXON] * 2), scores([AXON, SOMA], [SOMA, SOMA])),
    )  # fmt: skip
    found = Evaluation([item]).to_dict()["items"]["a"]
    are = found["objects"]["spread"]["are"]
    assert (are["count"], are["mean"], are["std"]) == (2, 0.2, 0.1)
    assert found["objects"]["spread"]["best_iou"]["median"] == 0.4
    spread = found["classes"]["spread"]
    assert spread["classes"]["axon"]["iou"]["mean"] == 0.5
    assert spread["classes"]["soma"]["iou"]["count"] == 1, "of parts where the class occurs"
    assert spread["classes"]["soma"]["dice"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert spread["mean_iou"]["mean"] == pytest.approx((1 + (0 + 0.5) / 2) / 2)


def test_speckle_is_pooled_over_voxels_and_left_out_without_any() -> None:
    items = [
        figures("a", speckle=Speckle(1, 10)),
        figures("b", speckle=Speckle(5, 10)),
        figures("c"),
    ]
    found = Evaluation(items).to_dict()
    assert found["data_sets"]["d"]["speckle"] == 0.3
    assert found["items"]["a"]["speckle"] == 0.1 and "speckle" not in found["items"]["c"]
    assert Evaluation([figures("a", speckle=Speckle())]).to_dict()["items"]["a"] == {
        "data_set": "d"
    }


def test_clicks_are_pooled_over_sessions() -> None:
    items = [
        figures("a", clicks=clicks([0.5, 0.9], [0.7])),
        figures("b", clicks=clicks([0.9])),
        figures("c", clicks=clicks()),
    ]
    found = Evaluation(items).to_dict()
    pooled = found["data_sets"]["d"]["clicks"]
    assert pooled["objects"] == 3 and pooled["iou_after"]["1"] == pytest.approx(0.7)
    assert pooled["spread"]["iou_1"]["median"] == 0.7
    assert pooled["spread"]["iou_3"]["mean"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert pooled["spread"]["noc_85"]["max"] == 20 and pooled["spread"]["noc_85"]["min"] == 1
    assert "clicks" not in found["items"]["c"], "no object was clicked"
    assert items[0].clicks is not None and len(items[0].clicks.sessions) == 2


def test_tables_tell_what_the_figures_say() -> None:
    item = figures(
        "a", objects=REPORT, speckle=Speckle(1, 8), are_parts=(0.1, 0.3), overlaps=(0.5,),
        classes=scores([AXON] * 3 + [SOMA], [AXON, AXON, SOMA, SOMA]), clicks=clicks([0.5, 0.9]),
    )  # fmt: skip
    found = Evaluation([item])
    classes = table_rows(found, "classes")
    assert classes["**d** (a) all"][2:7] == ["0.583", "0.733", "", "0.750", "4"]
    assert classes["axon"][2:7] == ["0.667", "0.800", "0.667", "", "3"]
    objects = table_rows(found, "objects")["**d** (a) 4"]
    assert objects[2:11] == [
        "5",
        "0.100",
        "0.500",
        "0.200",
        "0.700",
        "0.500",
        "0.286",
        "0.400",
        "0.125",
    ]
    assert objects[11:] == ["0.20 ± 0.10 (0.15, 0.20, 0.25)", "0.50 ± 0.00 (0.50, 0.50, 0.50)"]
    clicked = table_rows(found, "clicks")["**d** (a) 1"]
    assert clicked[2:12] == [
        "0.500",
        "0.900",
        "0.900",
        "0.900",
        "0.900",
        "0.860",
        "2.00",
        "2.00",
        "2.00",
        "0",
    ]


def test_tables_without_figures_are_left_out() -> None:
    assert evaluation_table(Evaluation()) == ""
    text = evaluation_table(Evaluation([figures("a", objects=REPORT), figures("b")]))
    assert text.startswith("| objects |") and "classes" not in text and "| b |" not in text
    assert "nan" not in text and "None" not in text


def test_a_spread_by_hand() -> None:
    found = spread_of([1.0, math.nan, 2.0, 3.0, 4.0, 10.0])
    assert found == Spread(5, 4.0, pytest.approx(math.sqrt(10)), 1.0, 2.0, 3.0, 4.0, 10.0)
    assert found.to_dict()["count"] == 5 and isinstance(found.to_dict()["count"], int)
    assert found.to_dict()["std"] == 3.162278
    assert spread_of([]) is None and spread_of([math.nan]) is None
