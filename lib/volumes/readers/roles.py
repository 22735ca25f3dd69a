"""Which dataset of a file plays which part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from lib.volumes.errors import VolumeError
from lib.volumes.readers.remote import Folder

Role = Literal["image", "semantic", "instance"]

USUAL: dict[Role, tuple[str, ...]] = {
    "image": ("volumes/raw", "raw"),
    "semantic": ("volumes/labels/semantic", "volumes/labels/classes", "semantic"),
    "instance": ("volumes/labels/neuron_ids", "instance"),
}
"""Dataset paths that are looked for first (CREMI, https://cremi.org/data)."""


_LEVEL = re.compile(r"(?:.*/)?s?(\d+)")


def finest_of(present: Mapping[str, tuple[int, ...]]) -> str | None:
    """The finest level where all arrays are levels of one pyramid (s0, s1, ...), else None."""
    levels = {int(m[1]): n for n in present if (m := _LEVEL.fullmatch(n))}
    groups = {name.rpartition("/")[0] for name in present}
    if len(levels) != len(present) or len(present) < 2 or len(groups) != 1:
        return None
    shapes = [present[levels[k]] for k in sorted(levels)]
    coarser = all(
        len(a) == len(b) and a != b and all(m >= n for m, n in zip(a, b, strict=True))
        for a, b in pairwise(shapes)
    )
    return levels[min(levels)] if coarser else None


def choose_dataset(
    path: Folder | str, wanted: str, role: Role, present: Mapping[str, tuple[int, ...]]
) -> str:
    """Pick a dataset.

    Args:
        wanted: what the user named; "" for the usual place of the role, or the only volume.
        present: datasets of the file with their shapes.

    Raises:
        VolumeError: it does not exist, or the choice is not clear; the datasets are listed.
    """
    listed = ", ".join(f"{n} {tuple(s)}" for n, s in sorted(present.items())[:30]) or "none"
    name = wanted.strip("/")
    if name:
        if name in present:
            return name
        raise VolumeError(path, f"no dataset {name!r}", f"one of: {listed}")
    for usual in USUAL[role]:
        if usual in present:
            return usual
    volumes = [n for n, shape in present.items() if len(shape) >= 2]
    if len(volumes) == 1:
        return volumes[0]
    raise VolumeError(
        path,
        f"{len(volumes)} datasets and none is {' or '.join(USUAL[role])}",
        f"one named as {str(path).rpartition('/')[2]}:DATASET",
        f"datasets: {listed}",
    )
