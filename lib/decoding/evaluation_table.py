"""An evaluation as text for a terminal or a README."""

from __future__ import annotations

from typing import Any

from lib.decoding.evaluate import Evaluation


def evaluation_table(found: Evaluation) -> str:
    """Markdown tables: classes, objects and clicks, a row for each data set and item."""
    data = found.to_dict()
    rows = [(f"**{name}**", figures) for name, figures in data["data_sets"].items()]
    rows += list(data["items"].items())
    parts = [_classes(rows), _objects(rows), _clicks(rows)]
    return "\n\n".join(part for part in parts if part)


def _classes(rows: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for name, figures in rows:
        classes = figures.get("classes")
        if classes is None:
            continue
        lines.append(
            [name, "all", _text(classes["mean_iou"]), _text(classes["mean_dice"]),
             _text(classes["set_accuracy"]), str(classes["voxels"])]
        )  # fmt: skip
        for kind in ("classes", "sets"):
            for label, score in classes[kind].items():
                if score["support"]:
                    lines.append(
                        ["", label, _text(score["iou"]), _text(score["dice"]), "",
                         str(score["support"])]
                    )  # fmt: skip
    return _markdown(["classes", "of", "IoU", "Dice", "accuracy", "voxels"], lines)


def _objects(rows: list[tuple[str, dict[str, Any]]]) -> str:
    keys = ("are", "voi_split", "voi_merge", "voi", "ap_50", "ap_75", "largest_share")
    lines = [
        [name, str(o["true_objects"]), str(o["predicted_objects"]), *(_text(o[k]) for k in keys)]
        for name, figures in rows
        if (o := figures.get("objects")) is not None
    ]
    heads = ["ARE", "VOI split", "VOI merge", "VOI", "AP-50", "AP-75", "largest share"]
    return _markdown(["objects", "true", "predicted", *heads], lines)


def _clicks(rows: list[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for name, figures in rows:
        clicks = figures.get("clicks")
        if clicks is not None:
            after = [_text(v) for v in clicks["iou_after"].values()]
            noc = [f"{clicks[f'noc_{t}']:.2f}" for t in (80, 85, 90)]
            lines.append(
                [name, str(clicks["objects"]), *after, _text(clicks["area"]), *noc,
                 str(clicks["failures_85"])]
            )  # fmt: skip
    heads = [f"IoU after {n}" for n in (1, 2, 3, 5, 10)]
    noc = ["NoC@80", "NoC@85", "NoC@90", "failures@85"]
    return _markdown(["clicks", "objects", *heads, "area", *noc], lines)


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    if not lines:
        return ""
    table = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
