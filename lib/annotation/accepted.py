"""What a submission leaves of accepted objects that the labels hold, and what it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

MOST_NAMED = 5
"""Objects that a note names."""


class AcceptedObjects:
    """Keeps accepted objects where a submission paints nothing, and counts their voxels.

    An object that the submission holds is as it was submitted. Any other keeps the voxels that
    nobody painted over, unless the submission says that all of its region was annotated.

    Args:
        ids: of the accepted objects.
        submitted: ids of the objects that the submission holds.
        declared: what it leaves unpainted was left so on purpose, or merges with what was there.
    """

    def __init__(
        self, ids: Collection[int], submitted: Collection[int] = (), declared: bool = False
    ) -> None:
        self._ids = sorted(ids)
        self._staying = [] if declared else sorted(set(ids) - set(submitted))
        self._kept: Counter[int] = Counter()
        self._removed: Counter[int] = Counter()

    def __bool__(self) -> bool:
        return bool(self._ids)

    def staying(self, instance: NDArray[np.int64], painted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where labels stay as they are, and count it.

        Args:
            instance: ids before the submission.
            painted: where it has a segment.
        """
        stays = np.isin(instance, self._staying) & ~painted
        self._kept += _counts(instance[stays])
        return stays

    def count(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> None:
        """Count the voxels that accepted objects had, and have no more."""
        self._removed += _counts(before[np.isin(before, self._ids) & (before != after)])

    def kept(self, names: Mapping[int, str]) -> dict[str, int]:
        """Name -> voxels that the submission left unpainted, and that stay."""
        return _named(self._kept, names)

    def removed(self, names: Mapping[int, str]) -> dict[str, int]:
        """Name -> voxels that are the object's no more in the labels."""
        return _named(self._removed, names)


def told_of_accepted(kept: Mapping[str, int], removed: Mapping[str, int]) -> list[str]:
    """What to tell an annotator of voxels of accepted objects."""
    told = []
    if kept:
        told.append(
            f"accepted objects that the submission does not hold are kept: {_listed(kept)}; "
            "do=delete removes one"
        )
    if removed:
        told.append(
            f"the labels no longer hold voxels of accepted objects: {_listed(removed)}; where that "
            "is wrong, accept them again or do=undo"
        )
    return told


def _counts(ids: NDArray[np.int64]) -> Counter[int]:
    found, counts = np.unique(ids, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _named(counts: Mapping[int, int], names: Mapping[int, str]) -> dict[str, int]:
    return {names.get(i) or f"object {i}": n for i, n in sorted(counts.items())}


def _listed(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} ({n} voxels)" for name, n in list(counts.items())[:MOST_NAMED])
    more = len(counts) - MOST_NAMED
    return f"{listed} and {more} more" if more > 0 else listed
