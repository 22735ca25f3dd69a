"""Draw training patches from known voxels, balanced over groups of items and their classes.

Every patch is a function of (seed, step, place in the batch) alone: a resumed run draws what
an uninterrupted one would have drawn, and N processes draw what one process with N times the
batch draws.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from lib.data.appearance import change_appearance
from lib.data.damage import Damage, ItemLost, Note
from lib.data.items import DataItem, Patch
from lib.data.patch_shapes import patch_shape, plane
from lib.data.positions import OBJECTS_ONLY, Stratum, index_positions
from lib.data.warp import draw_turn, draw_warp
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError

logger = logging.getLogger(__name__)


WARPED = 0.5
"""Share of the patches that are rotated, scaled and bent; all are turned and flipped."""


@dataclass(frozen=True)
class Entry:
    """One way to draw patches: an item, and whether single sections of it are drawn.

    Args:
        item: the item.
        shape: patch shape in the network frame; batches hold one shape.
        sections: single sections are drawn from a volume.
        strata: the item's training voxels by class set.
        weight: share of the draws, relative.
    """

    item: DataItem
    shape: Triple
    sections: bool
    strata: dict[int, Stratum]
    weight: float


class PatchSampler:
    """Draws batches of one shape.

    Args:
        items: labelled items; those without training voxels are left out.
        patch_size: (x, y, z) voxels of a patch of an anisotropic volume.
        seed: of every draw.
        augment: whether patches are augmented.
        group_weights: group -> factor on its share of the patches; 1 for groups not named.
        appearance: strength of the augmentation of contrast, brightness, shading and gamma.
        inverted: share of the patches whose contrast is inverted.
        shares: group -> its share of all patches, whatever its weight; the others share the rest.
        note: told of each item that turns out to be unreadable, in part or as a whole.

    Raises:
        ValueError: no item has a known voxel that may train, or a weighted group has none.
    """

    def __init__(
        self,
        items: Sequence[DataItem],
        patch_size: Triple,
        seed: int,
        augment: bool,
        group_weights: Mapping[str, float] | None = None,
        appearance: float = 1.0,
        inverted: float = 0.0,
        shares: Mapping[str, float] | None = None,
        note: Note = logger.warning,
    ) -> None:
        self.damage = Damage(note)
        self._drawing = Lock()  # several threads make batches
        self.seed, self.appearance, self.inverted = seed, appearance, inverted
        self.augment = augment
        self.entries = _entries(items, patch_size)
        if not self.entries:
            raise ValueError(
                f"nothing to train on: found {len(items)} labelled items without a known voxel "
                "outside validation; expected at least one annotated region; annotate and submit "
                "a label, or import a labelled volume"
            )
        self.entries = _weighted(self.entries, group_weights or {})
        self.entries = _shared_out(self.entries, shares or {})
        self._take_shapes()

    def _take_shapes(self) -> None:
        """The shapes of batches, by their shares."""
        self.shapes = sorted({entry.shape for entry in self.entries})
        weights = [sum(e.weight for e in self.entries if e.shape == s) for s in self.shapes]
        self.shape_shares = np.array(weights) / sum(weights)

    def group_shares(self) -> dict[str, float]:
        """The share of all patches that each group of items gives."""
        total = sum(e.weight for e in self.entries)
        groups = sorted({e.item.group for e in self.entries})
        return {g: sum(e.weight for e in self.entries if e.item.group == g) / total for g in groups}

    def class_shares(self, hierarchy: LabelHierarchy) -> dict[str, float]:
        """The share of all patches drawn at each class set ("objects": of unknown class)."""
        shares: dict[str, float] = {}
        total = sum(e.weight for e in self.entries)
        for shape in self.shapes:
            for group in sorted({e.item.group for e in self.entries}):
                inside = [e for e in self.entries if e.shape == shape and e.item.group == group]
                keys = sorted({key for e in inside for key in e.strata})
                for key in keys:
                    name = hierarchy.describe(key) if key != OBJECTS_ONLY else "objects"
                    part = sum(e.weight for e in inside) / total / len(keys)
                    shares[name] = shares.get(name, 0.0) + part
        return shares

    def batch(self, step: int, places: Sequence[int]) -> list[Patch]:
        """The patches of one step.

        Args:
            step: number of the batch in the run.
            places: places in the global batch that this process fills.

        Returns:
            patches of one shape; other places are drawn for those that cannot be read.

        Raises:
            ValueError: no item is left that can be read.
        """
        while True:
            shared = self._generator(step, 0)
            with self._drawing:
                shape = self.shapes[int(shared.choice(len(self.shapes), p=self.shape_shares))]
                members = [entry for entry in self.entries if entry.shape == shape]
            try:
                return [self._patch(members, self._generator(step, 1 + place)) for place in places]
            except ItemLost as lost:
                self._leave_out(lost.item)

    def _leave_out(self, item: DataItem) -> None:
        with self._drawing:
            left = [entry for entry in self.entries if entry.item is not item]
            if not left:
                raise ValueError(
                    f"nothing is left to train on: {item.id}, the last item, cannot be read any "
                    "more; import it again"
                )
            if len(left) == len(self.entries):
                return  # another thread did it
            self.entries = left
            self._take_shapes()
        self.damage.note(f"left out from here on: {item.id}, of which nothing can be read")

    def _generator(self, step: int, stream: int) -> np.random.Generator:
        """Independent streams of one step.

        By spawn key: as entropy a trailing 0 changes nothing, and the first patch would draw
        its data set with the very numbers that chose the batch's shape.
        """
        return np.random.default_rng(np.random.SeedSequence((self.seed, step), spawn_key=(stream,)))

    def _patch(self, members: Sequence[Entry], generator: np.random.Generator) -> Patch:
        while True:
            entry, voxel = _choose(members, generator)
            item, shape = entry.item, entry.shape
            try:
                if self.augment:
                    patch = _augmented(entry, voxel, generator, self.appearance, self.inverted)
                else:
                    patch = read_training(item, _box_around(voxel, shape, item.shape, generator))
                break
            except VolumeError as error:
                self.damage.failed(item, error)
        self.damage.passed(item)
        if not item.true_instances and not entry.sections and not item.flat:
            # Ids that hold within a section only would push apart pieces of one object.
            patch = replace(patch, within_sections=True)
        return patch


def _augmented(
    entry: Entry,
    voxel: Triple,
    generator: np.random.Generator,
    appearance: float,
    inverted: float,
) -> Patch:
    """A patch around a voxel, turned, warped and changed in appearance."""
    item, shape = entry.item, entry.shape
    cut = not item.isotropic and not item.flat
    turn = draw_turn(shape, item.shape, item.isotropic and not entry.sections, generator)
    warp = draw_warp(shape, cut, generator) if generator.random() < WARPED else None
    inner = _box_around(voxel, turn.source_extent(shape), item.shape, generator)
    margin = warp.margin if warp else 0
    grow = turn.source_extent((margin, margin, 0))
    wide = [(lo - g, hi + g) for (lo, hi), g in zip(inner, grow, strict=True)]
    patch = turn.apply(read_training(item, (wide[0], wide[1], wide[2])))
    if warp:
        patch = warp.apply(patch, item.hierarchy.unknown)
    image = change_appearance(patch.image, cut, generator, appearance, inverted)
    return replace(patch, image=image)


def read_training(item: DataItem, box: Box) -> Patch:
    """A patch whose validation voxels and their gap are unknown."""
    patch = item.read(box)
    for part in item.split.blocked(box):
        patch.class_sets[part] = item.hierarchy.unknown
        patch.instance[part] = IGNORE_INDEX
    return patch


def _entries(items: Sequence[DataItem], patch_size: Triple) -> list[Entry]:
    found: list[Entry] = []
    for item in items:
        strata = index_positions(item)
        if not strata:
            continue
        weight = float(sum(s.count for s in strata.values())) ** 0.5
        shape = patch_shape(item, patch_size)
        if item.true_instances or item.flat:
            found.append(Entry(item, shape, False, strata, weight))
            continue
        # Objects that hold within sections only are learned from single sections.
        x, y = plane(item, patch_size, depth=1)
        found.append(Entry(item, shape, False, strata, weight / 2))
        found.append(Entry(item, (x, y, 1), True, strata, weight / 2))
    return [replace(e, weight=e.weight * _group_factor(e, found)) for e in found]


def _group_factor(entry: Entry, entries: Sequence[Entry]) -> float:
    """Makes a group weigh as the root of its voxels, into however many items they are cut."""
    group = [e for e in entries if e.item.group == entry.item.group]
    # An item drawn in two ways counts once.
    strata = {e.item.id: e.strata for e in group}
    voxels = sum(s.count for of_item in strata.values() for s in of_item.values())
    return float(np.sqrt(voxels)) / sum(e.weight for e in group)


def _weighted(entries: Sequence[Entry], factors: Mapping[str, float]) -> list[Entry]:
    """The entries with their groups' factors on their weights."""
    groups = sorted({e.item.group for e in entries})
    unknown = sorted(set(factors) - set(groups))
    if unknown:
        raise ValueError(
            f"data.group_weights: no training patches from {', '.join(unknown)}; expected some of "
            f"{', '.join(groups)} (an item's group is its name up to the first '-')"
        )
    return [replace(e, weight=e.weight * factors.get(e.item.group, 1.0)) for e in entries]


def _shared_out(entries: Sequence[Entry], shares: Mapping[str, float]) -> list[Entry]:
    """The entries with some groups at a fixed share of all weight."""
    fixed = {g: s for g, s in shares.items() if any(e.item.group == g for e in entries)}
    rest = sum(e.weight for e in entries if e.item.group not in fixed)
    if not fixed or not rest:
        return list(entries)
    left = 1.0 - sum(fixed.values())
    factors = {
        group: share / left * rest / sum(e.weight for e in entries if e.item.group == group)
        for group, share in fixed.items()
    }
    return [replace(e, weight=e.weight * factors.get(e.item.group, 1.0)) for e in entries]


def _choose(members: Sequence[Entry], generator: np.random.Generator) -> tuple[Entry, Triple]:
    """A group, one of its classes (all alike), an item that has it, a voxel of it."""
    groups = sorted({e.item.group for e in members})
    shares = np.array([sum(e.weight for e in members if e.item.group == g) for g in groups])
    group = groups[int(generator.choice(len(groups), p=shares / shares.sum()))]
    inside = [e for e in members if e.item.group == group]
    keys = sorted({key for e in inside for key in e.strata})
    key = keys[int(generator.integers(len(keys)))]
    having = [e for e in inside if key in e.strata]
    counts = np.array([e.strata[key].count for e in having], float) ** 0.5
    entry = having[int(generator.choice(len(having), p=counts / counts.sum()))]
    return entry, entry.strata[key].draw(generator)


def _box_around(
    voxel: Triple, shape: Triple, bounds: Triple, generator: np.random.Generator
) -> Box:
    """A box of `shape` that holds the voxel at a random place, inside the item if it fits."""
    box = []
    for position, size, limit in zip(voxel, shape, bounds, strict=True):
        start = position - int(generator.integers(size))
        start = min(max(start, 0), max(limit - size, 0))
        box.append((start, start + size))
    return box[0], box[1], box[2]
