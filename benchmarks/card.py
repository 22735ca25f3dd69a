"""The figure tables of the model card, from what `main.py evaluate --json` wrote.

    python main.py evaluate --studies runs/weights/real --json dev.json
    python main.py evaluate --studies runs/weights/unseen-sections runs/weights/unseen-isotropic \\
        --split all --json unseen.json
    python benchmarks/card.py dev.json unseen.json [--travel travel.json] \\
        [--worst docs/images/worst] [--into model/README.md]

Prints Markdown; with `--into` it takes the place of what lies between the card's marks. Files
are of one weights file; where two have the same figure, the later one counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.travel import row  # noqa: E402
from lib.volumes.atomic import write_bytes  # noqa: E402

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Line:
    """A row of the main table.

    Args:
        data_set: key in the evaluation.
        name: for people.
        path: keys of the figure inside the data set.
        spread: keys of its spread; empty for none.
        over: what the spread is over.
        aim: None where there is none.
        less: whether less is better.
    """

    data_set: str
    name: str
    path: tuple[str, ...]
    spread: tuple[str, ...] = ()
    over: str = "sections"
    aim: float | None = None
    less: bool = False


def _class(data_set: str, name: str, figure: str, aim: float, over: str = "sections") -> Line:
    label = "IoU" if figure == "iou" else "Dice"
    return Line(
        data_set,
        f"{name}, {label}",
        ("classes", "classes", name, figure),
        ("classes", "spread", "classes", name, figure),
        over,
        aim,
    )


def _against_rest(data_set: str, name: str, figure: str) -> Line:
    """On all labelled pixels, those that may be of the class or not among the others."""
    label = "IoU" if figure == "iou" else "Dice"
    place = ("classes", "against_rest", name, figure)
    return Line(data_set, f"{name} against all other labelled pixels, {label}", place)


def _objects(data_set: str, are: float | None = None, voi: float | None = None) -> Iterator[Line]:
    place, spread = ("objects",), ("objects", "spread")
    yield Line(
        data_set, "`instances`, adapted Rand error", (*place, "are"), (*spread, "are"),
        "sections", are, less=True,
    )  # fmt: skip
    yield Line(data_set, "`instances`, VOI split + merge", (*place, "voi"), aim=voi, less=True)
    yield Line(data_set, "`instances`, VOI split", (*place, "voi_split"), less=True)
    yield Line(data_set, "`instances`, VOI merge", (*place, "voi_merge"), less=True)
    yield Line(
        data_set, "`instances`, AP-50; best IoU of each object", (*place, "ap_50"),
        (*spread, "best_iou"), "objects",
    )  # fmt: skip


def _clicks(data_set: str, one: float | None, three: float | None, noc: float | None) -> list[Line]:
    spread = ("clicks", "spread")
    return [
        Line(data_set, "`proofread`, IoU after 1 click", ("clicks", "iou_after", "1"),
             (*spread, "iou_1"), "objects", one),
        Line(data_set, "`proofread`, IoU after 3 clicks", ("clicks", "iou_after", "3"),
             (*spread, "iou_3"), "objects", three),
        Line(data_set, "`proofread`, clicks to IoU 0.85 (20: never)", ("clicks", "noc_85"),
             (*spread, "noc_85"), "objects", noc, less=True),
    ]  # fmt: skip


LINES = (
    _class("vnc", "mitochondria", "iou", 0.78),
    _against_rest("vnc", "mitochondria", "iou"),
    Line("vnc", "extracellular space or glia, IoU",
         ("classes", "sets", "extracellular space or glia", "iou")),
    _class("sbem", "mitochondria", "iou", 0.85),
    _class("axondeepseg", "axon", "dice", 0.88, "tiles"),
    _against_rest("axondeepseg", "axon", "dice"),
    _class("axondeepseg", "myelin", "dice", 0.80, "tiles"),
    _against_rest("axondeepseg", "myelin", "dice"),
    *_objects("fib25", 0.10, 1.2),
    *_objects("fib25block", 0.10, 1.3),
    *(Line(name, "speckle of the class map in true objects", ("speckle",), less=True)
      for name in ("fib25", "fib25block", "vnc", "gala", "synthetic")),
    *_clicks("fib25", 0.75, 0.85, 3.0),
    *_objects("gala"),
    *_clicks("gala", None, None, None),
    Line("synthetic", "mean IoU of the twelve classes", ("classes", "mean_iou"),
         ("classes", "spread", "mean_iou"), "sections", 0.80),
    *_objects("synthetic"),
    *_clicks("synthetic", None, None, None),
)  # fmt: skip


def read(paths: list[Path]) -> dict[str, Any]:
    """The figures of several evaluations by data set, and the digest of the weights."""
    merged: dict[str, Any] = {"data_sets": {}, "about": []}
    for path in paths:
        data = json.loads(path.read_text())
        merged["about"].append(data["about"])
        for name, figures in data["data_sets"].items():
            merged["data_sets"].setdefault(name, {}).update(figures)
    digests = {about["weights"]["sha256"] for about in merged["about"]}
    if len(digests) != 1:
        raise SystemExit(f"evaluations of different weights: {', '.join(sorted(digests))}")
    return merged


def main_table(figures: dict[str, Any]) -> str:
    """Reached, spread and aim of every figure that was measured."""
    lines = [
        "| data set | figure | reached | mean ± deviation (quartiles) | over | aim | |",
        "|---|---|--:|---|---|--:|---|",
    ]
    for line in LINES:
        value = _at(figures, line.data_set, line.path)
        if value is None:
            continue
        spread = _at(figures, line.data_set, line.spread) if line.spread else None
        over = f"{spread['count']} {line.over}" if spread else ""
        aim, verdict = "", ""
        if line.aim is not None:
            met = value <= line.aim if line.less else value >= line.aim
            aim = f"{'≤' if line.less else '≥'} {line.aim:.2f}"
            verdict = "reached" if met else f"missed by {abs(value - line.aim):.2f}"
        cells = (line.data_set, line.name, f"{value:.3f}", _spread(spread), over, aim, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def class_table(figures: dict[str, Any]) -> str:
    """Each class of the synthetic neuropil, and of real data where it is known."""
    lines = [
        "| data set | class | IoU | Dice | IoU against the rest | IoU of sections | voxels |",
        "|---|---|--:|--:|--:|---|--:|",
    ]
    for name, found in figures.items():
        classes = found.get("classes", {})
        for label, score in classes.get("classes", {}).items():
            if not score["support"]:
                continue
            spread = classes["spread"]["classes"].get(label, {}).get("iou")
            rest = classes.get("against_rest", {}).get(label, {}).get("iou")
            seen = "" if rest is None else f"{rest:.3f}"
            cells = (name, label, f"{score['iou']:.3f}", f"{score['dice']:.3f}", seen,
                     _spread(spread), f"{score['support']:,}")  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def travel_table(path: Path) -> str:
    """What `benchmarks/travel.py --json` wrote."""
    data = json.loads(path.read_text())
    changes: list[tuple[str, dict[str, float]]] = data["changes"]
    first = {name: changes[0][1][name] for name in data["columns"]}
    head = "| image | " + " | ".join(first) + " |\n|---" + "|--:" * len(first) + "|"
    rows = "\n".join(row(name, found, first) for name, found in changes)
    part = f"the middle {data['edge']} voxels of each image" if data["edge"] else "whole images"
    return f"On {part}; in brackets what is left of the unchanged image's figure.\n\n{head}\n{rows}"


def worst_pictures(folder: Path, target: Path) -> str:
    """The worst case of each data set and figure, of what `evaluate --worst` wrote."""
    text = (folder / "worst.md").read_text().splitlines()
    parts = [text[0]]
    for line in text:
        found = re.match(r"\| !\[\]\((.+-1\.png)\) \| (.+) \|$", line)
        if found:
            data_set, figure, value, item, place = found[2].split(" | ")
            picture = Path(os.path.relpath(folder / found[1], target.parent)).as_posix()
            parts.append(f"{data_set}: {figure} {value} ({item}, {place})\n\n![{item}]({picture})")
    return "\n\n".join(parts)


def card(figures: dict[str, Any], travel: Path | None, worst: str = "") -> str:
    """All tables, and the worst cases."""
    digest = figures["about"][0]["weights"]["sha256"]
    parts = [
        f"Weights with SHA-256 `{digest}`.",
        main_table(figures["data_sets"]),
        "### Classes\n\n" + class_table(figures["data_sets"]),
    ]
    if travel is not None:
        parts.append("### Other contrast, noise, bits and voxel sizes\n\n" + travel_table(travel))
    if worst:
        parts.append("### Worst cases\n\n" + worst)
    return "\n\n".join(parts)


def put_into(path: Path, text: str) -> None:
    """Replace what lies between the marks of a card."""
    old = path.read_text()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{path}: no marks {BEGIN} and {END}")
    before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    write_bytes(path, f"{before}{BEGIN}\n{text}\n{END}{after}".encode())


def _at(figures: dict[str, Any], data_set: str, path: tuple[str, ...]) -> Any:
    value = figures.get(data_set, {})
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _spread(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    quartiles = ", ".join(f"{value[k]:.2f}" for k in ("q1", "median", "q3"))
    return f"{value['mean']:.2f} ± {value['std']:.2f} ({quartiles})"


def main() -> int:
    """Read, and print or put in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--travel", type=Path, help="JSON of benchmarks/travel.py")
    parser.add_argument("--worst", type=Path, help="folder of evaluate --worst, in the repository")
    parser.add_argument("--into", type=Path, help="the card to change")
    args = parser.parse_args()
    target = args.into or ROOT / "model" / "README.md"
    worst = worst_pictures(args.worst, target) if args.worst else ""
    text = card(read(args.evaluations), args.travel, worst)
    if args.into:
        put_into(args.into, text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
