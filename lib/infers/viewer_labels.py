"""What viewers are told: names 1..N without gaps, and the map from label codes to them.

3D Slicer sorts `label_names` by value and gives the n-th name the voxel value n; OHIF zeroes
values that `/info/` does not declare. So one list serves every task and level: the fine
classes, then the groups that are not also a class.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lib.infers.writer import NamedSegment
from lib.labels.encodings import GROUP_BASE
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.labels.segment_names import UNCERTAIN

Color = tuple[int, int, int]


class ViewerLabels:
    """Names and values for viewers.

    Args:
        hierarchy: classes and groups.
    """

    def __init__(self, hierarchy: LabelHierarchy) -> None:
        self.hierarchy = hierarchy

    @cached_property
    def names(self) -> dict[str, int]:
        """Name -> voxel value in a viewer: classes, then groups that are no class."""
        names = {c.name: i + 1 for i, c in enumerate(self.hierarchy.classes)}
        known = {normalize_name(name) for name in names}
        for group in self.hierarchy.group_names:
            if normalize_name(group) not in known:
                names[group] = len(names) + 1
        return names

    @property
    def segments(self) -> list[str]:
        """The segments that a viewer makes for an annotator: the names, and "uncertain"."""
        return [*self.names, UNCERTAIN]

    @cached_property
    def lut(self) -> NDArray[np.uint8]:
        """(256,) code of a `final` map -> voxel value in a viewer; unknown becomes 0."""
        lut = np.zeros(256, np.uint8)
        by_key = {normalize_name(name): value for name, value in self.names.items()}
        for i, name in enumerate(self.hierarchy.class_names):
            lut[i + 1] = by_key[normalize_name(name)]
        for k, name in enumerate(self.hierarchy.group_names):
            lut[GROUP_BASE + k] = by_key[normalize_name(name)]
        return lut

    def color(self, name: str) -> Color:
        """RGB of a class, or the mean of a group's classes."""
        members = self.hierarchy.members(self.hierarchy.set_named(name))
        colors = np.array([self.hierarchy.classes[i].color for i in members], np.float64)
        red, green, blue = (int(v) for v in colors.mean(axis=0).round())
        return red, green, blue

    def named(self, shape: tuple[int, int, int]) -> list[NamedSegment]:
        """A segment for each name, empty or not: a viewer that takes them loses none of its own.

        Args:
            shape: of the map.
        """
        x, y, z = (size - 1 for size in shape)
        return [
            NamedSegment(value, name, self.color(name), (0, x, 0, y, 0, z))
            for name, value in self.names.items()
        ]

    def index_of(self, name: str) -> int | None:
        """The fine class that a name means, or None (a group, an object, a free name)."""
        key = normalize_name(name)
        for i, class_name in enumerate(self.hierarchy.class_names):
            if normalize_name(class_name) == key:
                return i
        return None
