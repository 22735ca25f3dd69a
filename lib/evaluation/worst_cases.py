"""The worst cases of an evaluation as pictures: image, truth and prediction side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.labels.colors import Rgb, id_colors, overlay, set_colors
from lib.labels.hierarchy import LabelHierarchy
from lib.metrics.clicks import Click, Mask
from lib.volumes.atomic import write_bytes
from lib.volumes.contrast import intensity_window, normalize

FEWEST_PIXELS, MOST_PIXELS = 256, 640
"""Of a panel's longer edge; smaller sections are enlarged, larger ones thinned out."""

LEGEND = (
    "Image, truth, prediction. Nothing is drawn where the truth is unknown; where it is a set of "
    "several classes, only predictions outside the set are. White crosses are clicks on the "
    "object, black ones beside it."
)

GAP_PIXELS = 4
CROSS_PIXELS = 4
WHITE, BLACK, ORANGE = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.55, 0.0)


@dataclass(frozen=True)
class Case:
    """One picture and what it is a picture of.

    Args:
        figure: name of the figure, the worse the lower.
        value: of the figure.
        item: its id.
        place: section, tile or object.
        picture: (height, width, 3) in [0, 1].
    """

    figure: str
    value: float
    item: str
    place: str
    picture: Rgb


@dataclass
class WorstCases:
    """Keeps the worst cases of each data set and figure, and writes them.

    Args:
        most: how many of each.
    """

    most: int = 3
    _kept: dict[tuple[str, str], list[Case]] = field(default_factory=lambda: defaultdict(list))

    def offer(
        self,
        data_set: str,
        figure: str,
        value: float,
        item: str,
        place: str,
        draw: Callable[[], Rgb],
    ) -> None:
        """Keep a case if it is among the worst; only then it is drawn."""
        kept = self._kept[data_set, figure]
        full = len(kept) >= self.most
        if not self.most or np.isnan(value) or (full and value >= kept[-1].value):
            return
        kept.append(Case(figure, value, item, place, draw()))
        kept.sort(key=lambda case: case.value)
        del kept[self.most :]

    def write(self, folder: Path) -> list[Path]:
        """A PNG for each case, and `worst.md` that lists them."""
        lines = [
            LEGEND,
            "",
            "| picture | data set | figure | value | item | place |",
            "|---|---|---|--:|---|---|",
        ]
        written: list[Path] = []
        for (data_set, figure), cases in sorted(self._kept.items()):
            for rank, case in enumerate(cases, 1):
                stem = f"{_plain(data_set)}-{_plain(figure)}-{rank}"
                path = _free(folder, stem, written)
                write_bytes(path, _png(case.picture))
                written.append(path)
                cells = (data_set, figure, f"{case.value:.3f}", case.item, case.place)
                lines.append(f"| ![]({path.name}) | " + " | ".join(cells) + " |")
        write_bytes(folder / "worst.md", ("\n".join(lines) + "\n").encode())
        return written


def class_picture(
    image: NDArray[Any],
    class_sets: NDArray[np.int32],
    predicted: NDArray[np.int16],
    hierarchy: LabelHierarchy,
) -> Rgb:
    """Image, known classes and predicted classes of one part, all (X, Y, Z) with one axis 1.

    Where the truth is several classes, the prediction is shown only where it is wrong.
    """
    grey = _grey(image)
    sets, guess = _flat(class_sets), 1 << np.maximum(_flat(predicted).astype(np.int64), 0)
    known = sets != hierarchy.unknown
    several = known & ((sets & (sets - 1)) != 0)
    right = several & ((guess & ~sets) == 0)
    truth = overlay(grey, set_colors(sets, hierarchy), known & ~several)
    return _panels(grey, truth, overlay(grey, set_colors(guess, hierarchy), known & ~right))


def object_picture(image: NDArray[Any], truth: NDArray[np.int64], found: NDArray[Any]) -> Rgb:
    """Image, true objects and found objects of one part, all (X, Y, Z) with one axis 1."""
    grey, ids, guess = _grey(image), _flat(truth), _flat(found)
    return _panels(
        grey,
        overlay(grey, id_colors(ids), ids > 0),
        overlay(grey, id_colors(guess), (guess > 0) & (ids >= 0)),
    )


def click_picture(image: Any, truth: Mask, answer: Mask, clicks: list[Click]) -> Rgb:
    """Image with clicks, object and answer in the section with most errors.

    Args:
        image: (X, Y, Z) in the network's frame, read lazily.
        truth, answer: (X, Y, Z).
        clicks: network voxels; those of the section are drawn, white on and black off the object.
    """
    wrong = truth != answer
    z = int(wrong.sum(axis=(0, 1)).argmax())
    grey = _grey(np.asarray(image[:, :, z : z + 1]))
    color = np.broadcast_to(np.array(ORANGE, np.float32), grey.shape)
    marked = grey.copy()
    for click in clicks:
        x, y, at = click.position
        if at == z:
            near = slice(max(x - CROSS_PIXELS, 0), x + CROSS_PIXELS + 1)
            marked[near, y] = WHITE if click.positive else BLACK
            near = slice(max(y - CROSS_PIXELS, 0), y + CROSS_PIXELS + 1)
            marked[x, near] = WHITE if click.positive else BLACK
    return _panels(
        marked, overlay(grey, color, truth[:, :, z]), overlay(grey, color, answer[:, :, z])
    )


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """A part of one section without that section's axis."""
    axis = max(a for a in range(3) if values.shape[a] == 1)
    flat: NDArray[Any] = values.take(0, axis)
    return flat


def _grey(image: NDArray[Any]) -> Rgb:
    normal = _flat(normalize(image, intensity_window(image)))
    return np.repeat(normal[..., None], 3, axis=2)


def _panels(*panels: Rgb) -> Rgb:
    """Panels (X, Y, 3) from left to right as (height, width, 3)."""
    longest = max(panels[0].shape[:2])
    step, times = -(-longest // MOST_PIXELS), max(1, FEWEST_PIXELS // longest)
    sized = [p[::step, ::step].repeat(times, 0).repeat(times, 1) for p in panels]
    gap = np.ones((GAP_PIXELS, sized[0].shape[1], 3), np.float32)
    strip = [part for panel in sized for part in (panel, gap)][:-1]
    picture: Rgb = np.concatenate(strip).transpose(1, 0, 2)
    return picture


def _png(picture: Rgb) -> bytes:
    data = BytesIO()
    Image.fromarray(np.rint(picture.clip(0, 1) * 255).astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def _free(folder: Path, stem: str, taken: Sequence[Path]) -> Path:
    """A name for a picture; data sets may differ only in what file names leave out."""
    names = (f"{stem}{suffix}.png" for suffix in ("", *(f"-{n}" for n in range(2, 2 + len(taken)))))
    return next(path for name in names if (path := folder / name) not in taken)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
