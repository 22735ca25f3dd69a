"""Tables, verdict and curves of the simulation of annotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

Run = dict[str, Any]
PLAIN, BASE = "plain random", "random"
NEEDED_SEEDS = 3


def load_runs(path: Path) -> list[Run]:
    """The runs in the results file; a line cut short by a kill is left out."""
    runs = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def curves_of(runs: list[Run], data: str, arm: str) -> dict[int, np.ndarray]:
    """Seed -> (rounds + 1,) mean IoU, the start first."""
    return {
        r["seed"]: np.array([row["mean_iou"] for row in r["rows"]])
        for r in runs
        if r["data"] == data and r["arm"] == arm
    }


def gains(runs: list[Run], data: str, arm: str, base: str) -> np.ndarray:
    """Mean over the rounds above another arm's, for each seed that both have.

    Both arms of a seed begin at the same boxes with the same network, so that what remains is
    the choice of boxes.
    """
    mine, other = curves_of(runs, data, arm), curves_of(runs, data, base)
    return np.array([float((mine[s] - other[s])[1:].mean()) for s in sorted(mine) if s in other])


def summarise(runs: list[Run], arms: tuple[str, ...]) -> str:
    """Markdown: mean IoU after each round with its spread, gains seed by seed, and a verdict."""
    lines = []
    for data in sorted({r["data"] for r in runs}):
        boxes = next([row["boxes"] for row in r["rows"]] for r in runs if r["data"] == data)
        heads = ["strategy", *(f"{n} boxes" for n in boxes), f"above `{BASE}`, seed by seed",
                 f"above {PLAIN}"]  # fmt: skip
        lines += [f"### {data}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for arm in arms:
            curves = np.array(list(curves_of(runs, data, arm).values()))
            if not len(curves):
                continue
            spread = np.std(curves, axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(boxes))
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(curves.mean(0), spread, strict=True)]
            by_seed = ", ".join(f"{g:+.3f}" for g in gains(runs, data, arm, BASE))
            plain = gains(runs, data, arm, PLAIN)
            cells.append(by_seed if arm != BASE and by_seed else "-")
            cells.append(f"{plain.mean():+.3f}" if arm != PLAIN and len(plain) else "-")
            lines.append(f"| {arm} | {' | '.join(cells)} |")
        lines += ["", *(verdict(runs, data, arm) for arm in arms if arm != BASE), ""]
    return "\n".join(lines)


def verdict(runs: list[Run], data: str, arm: str) -> str:
    """Whether an arm beat foreground-aware random by more than the spread over seeds."""
    found = gains(runs, data, arm, BASE)
    if len(found) < NEEDED_SEEDS:
        return f"- {arm}: {len(found)} seeds in common with `{BASE}`, too few to tell"
    mean, spread = float(found.mean()), float(found.std(ddof=1))
    word = "level with" if abs(mean) <= spread else "BEATS" if mean > 0 else "behind"
    return f"- {arm}: {word} `{BASE}`: {mean:+.3f}, spread over {len(found)} seeds {spread:.3f}"


def draw_curves(runs: list[Run], arms: tuple[str, ...], path: Path) -> None:
    """Mean IoU against annotated boxes, one panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({r["data"] for r in runs})
    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4), squeeze=False)
    for axis, data in zip(axes[0], names, strict=True):
        boxes = next([row["boxes"] for row in r["rows"]] for r in runs if r["data"] == data)
        for arm in arms:
            values = np.array(list(curves_of(runs, data, arm).values()))
            if len(values):
                axis.plot(boxes, values.mean(0), marker=".", label=arm)
                axis.fill_between(boxes, values.min(0), values.max(0), alpha=0.12)
        axis.set(title=data, xlabel="annotated boxes", ylabel="mean IoU, held-out volumes")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
