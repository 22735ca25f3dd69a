"""An evaluation as text for a terminal or a README."""

from __future__ import annotations

from typing import Any

from lib.evaluation.figures import Evaluation


def evaluation_table(found: Evaluation) -> str:
    """Markdown tables: classes, objects and clicks, a row for each data set and item.

    A data set of one item is that item, and has one row.
    Spreads are mean ± standard deviation (quartiles) over sections, or tiles of a single
    section, or over objects.
    """
    data = found.to_dict()
    members: dict[str, list[str]] = {}
    for item, figures in data["items"].items():
        members.setdefault(figures["data_set"], []).append(item)
    rows = []
    for name, figures in data["data_sets"].items():
        own = members[name]
        rows.append((f"**{name}** ({own[0]})" if len(own) == 1 else f"**{name}**", figures))
    several = [item for own in members.values() if len(own) > 1 for item in own]
    rows += [(item, data["items"][item]) for item in several]
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
             "", _text(classes["set_accuracy"]), str(classes["voxels"]),
             _spread(classes["spread"].get("mean_iou"))]
        )  # fmt: skip
        for kind in ("classes", "sets"):
            for label, score in classes[kind].items():
                if score["support"]:
                    rest = classes["against_rest"].get(label, {}) if kind == "classes" else {}
                    lines.append(
                        ["", label, _text(score["iou"]), _text(score["dice"]),
                         _text(rest.get("iou")), "",
                         str(score["support"]),
                         _spread(classes["spread"]["classes"].get(label, {}).get("iou"))]
                    )  # fmt: skip
    heads = [
        "classes",
        "of",
        "IoU",
        "Dice",
        "IoU against the rest",
        "accuracy",
        "voxels",
        "IoU of sections",
    ]
    return _markdown(heads, lines)


def _objects(rows: list[tuple[str, dict[str, Any]]]) -> str:
    keys = ("are", "voi_split", "voi_merge", "voi", "ap_50", "ap_75", "largest_share")
    lines = [
        [name, str(o["true_objects"]), str(o["predicted_objects"]), *(_text(o[k]) for k in keys),
         _text(figures.get("speckle")),
         *(_spread(o["spread"].get(k)) for k in ("are", "best_iou"))]
        for name, figures in rows
        if (o := figures.get("objects")) is not None
    ]  # fmt: skip
    heads = ["ARE", "VOI split", "VOI merge", "VOI", "AP-50", "AP-75", "largest share", "speckle"]
    heads += ["ARE of sections", "best IoU of objects"]
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
                 str(clicks["failures_85"]),
                 *(_spread(clicks["spread"].get(k)) for k in ("iou_1", "iou_3", "noc_85"))]
            )  # fmt: skip
    heads = [f"IoU after {n}" for n in (1, 2, 3, 5, 10)]
    noc = ["NoC@80", "NoC@85", "NoC@90", "failures@85"]
    noc += ["after 1, of objects", "after 3, of objects", "NoC@85, of objects"]
    return _markdown(["clicks", "objects", *heads, "area", *noc], lines)


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    if not lines:
        return ""
    table = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def _spread(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    low, middle, high = (f"{value[k]:.2f}" for k in ("q1", "median", "q3"))
    return f"{value['mean']:.2f} ± {value['std']:.2f} ({low}, {middle}, {high})"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
