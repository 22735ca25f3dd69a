"""Table and curves of a lab's first day (`first_day.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot

ROUNDS = (1, 3, 5, 10)
ARMS = ("as it is", "refit", "refit, ungated", "forest")


def mean_iou(figures: dict[str, float]) -> float:
    """Over the classes of a row."""
    return float(np.mean(list(figures.values())))


def summary(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: mean IoU by data set and number of boxes, mean over seeds."""
    lines = [
        "| data | boxes | " + " | ".join(ARMS) + " | objects: ARE before | after | CPU seconds |"
    ]
    lines.append("|---|--:|" + "--:|" * (len(ARMS) + 3))
    for name in sorted({r["data"] for r in rows}):
        for boxes in ROUNDS:
            here = [r for r in rows if (r["data"], r["boxes"]) == (name, boxes)]
            if here:
                cells = [f"{np.mean([mean_iou(r['figures'][a]) for r in here]):.3f}" for a in ARMS]
                pairs = [r["objects"] for r in here if r["objects"][0] is not None]
                cells += [f"{e:.3f}" for e in np.mean(pairs, 0)] if pairs else ["", ""]
                cells.append(f"{np.median([r['seconds'] for r in here]):.1f}")
                lines.append(f"| {name} | {boxes} | {' | '.join(cells)} |")
    gains = [
        r["figures"]["refit"][c] - iou for r in rows for c, iou in r["figures"]["as it is"].items()
    ]
    plain = [
        r["figures"]["refit, ungated"][c] - iou
        for r in rows
        for c, iou in r["figures"]["as it is"].items()
    ]
    lines.append(f"\nworst change of a class: {min(gains):+.3f} (ungated {min(plain):+.3f})")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], picture: Path) -> None:
    """Curves over the number of submissions, a column for each data set: classes and objects."""
    names = sorted({r["data"] for r in rows})
    figure, axes = pyplot.subplots(
        2, len(names), figsize=(2.5 * len(names), 4.4), squeeze=False, sharey="row"
    )
    for column, name in enumerate(names):
        here = [r for r in rows if r["data"] == name]
        at = sorted({r["boxes"] for r in here})
        top, bottom = axes[:, column]
        for arm, style in zip(ARMS, ("k--", "C0o-", "C0:", "C1s-"), strict=True):
            values = [
                np.mean([mean_iou(r["figures"][arm]) for r in here if r["boxes"] == b]) for b in at
            ]
            top.plot(at, values, style, label=arm)
        known = [r for r in here if r["objects"][0] is not None]
        for index, (arm, style) in enumerate(((ARMS[0], "k--"), (ARMS[1], "C0o-"))):
            if known:
                values = [
                    np.mean([r["objects"][index] for r in known if r["boxes"] == b]) for b in at
                ]
                bottom.plot(at, values, style, label=arm)
        top.set(title=name, xticks=ROUNDS, ylim=(0, 1))
        bottom.set(xlabel="boxes submitted", xticks=ROUNDS, ylim=(0, 1))
        if not known:
            bottom.set_visible(False)
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("classes, mean IoU")
    first = next((a for a in axes[1] if a.get_visible()), axes[1, 0])
    first.set_ylabel("objects, Rand error")
    first.tick_params(labelleft=True)
    axes[0, 0].legend(fontsize=6)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
