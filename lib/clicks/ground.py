"""What answers are made of: fragments, their contacts, and the objects that these say.

Kept with the item where `instances` has run; otherwise made of the windows around the points,
from the same features as everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.source import ClickSource
from lib.clicks.windows import centrality
from lib.networks.study_heads import CLASSES, with_study_heads
from lib.prediction.classes import FINE_VALUE
from lib.prediction.evidence import HEADS, Evidence, affinities_of, said_by
from lib.prediction.feature_cache import WindowKey
from lib.prediction.graph import REACHES, FragmentGraph
from lib.prediction.grouping import group_volume
from lib.prediction.objects import Fragments
from lib.prediction.ways import Way
from lib.targets.pairs import pair_offsets
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    hull,
    intersect,
    minus,
    shift_box,
    whole_box,
)

Ids = NDArray[np.uint32]

UNKNOWN_LOGIT = 8.0
"""Log odds of pieces of one object whose contact no graph knows; less of two objects."""


@dataclass(frozen=True)
class Ground:
    """Fragments of a box and what is known of them.

    Args:
        box: network voxels.
        fragments: on the box.
        logits: (E,) log odds that two fragments in contact belong together.
        cells: (F + 1,) object of each fragment, as the graph alone says.
    """

    box: Box
    fragments: Fragments
    logits: NDArray[np.float64]
    cells: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        kept = (self.fragments.ids, self.fragments.graph.stats, self.cells)
        return sum(values.nbytes for values in kept)

    def read(self, box: Box) -> Ids:
        """Fragments of a box, 0 none; nothing is known beyond this one's."""
        found = np.zeros(box_shape(box), np.uint32)
        common = intersect(box, self.box)
        if common is not None:
            inner, outer = minus(box_origin(box)), minus(box_origin(self.box))
            ids = self.fragments.ids[box_slices(shift_box(common, outer))]
            found[box_slices(shift_box(common, inner))] = ids
        return found

    def contacts(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log odds and number of voxel pairs of contacts (P, 2); nan and 1 where not known."""
        wanted = np.sort(pairs, 1)
        keys = wanted[:, 0] * len(self.cells) + wanted[:, 1]
        logits, sizes = np.full(len(pairs), np.nan), np.ones(len(pairs))
        if len(self._keys):
            place = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
            hit = self._keys[place] == keys
            logits[hit] = self.logits[place[hit]]
            sizes[hit] = self.fragments.graph.contact[place[hit]]
        return logits, sizes

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        edges = self.fragments.graph.edges
        keys: NDArray[np.int64] = edges[:, 0] * len(self.cells) + edges[:, 1]
        return keys


NOTHING = Ground(
    whole_box((0, 0, 0)),
    Fragments(
        np.zeros((0, 0, 0), np.uint32),
        FragmentGraph(
            np.zeros((0, 2), np.int64), np.zeros((0, len(REACHES), 5)), np.zeros((1, 1), np.int64)
        ),
    ),
    np.zeros(0),
    np.zeros(1, np.int64),
)
"""Of an item whose fragments are of other weights, or of another image."""


def kept_ground(source: ClickSource) -> Ground | None:
    """The ground of the whole image, where `instances` left its fragments."""
    if source.kept is None:
        return None
    version, load = source.kept

    def compute() -> Ground:
        fragments = load()
        if fragments is None or fragments.ids.shape != source.shape:
            return NOTHING
        return _ground(source, whole_box(source.shape), fragments)

    kind = f"fragments {version} {source.heads}"
    key = WindowKey(source.weights, source.image_key, whole_box(source.shape), kind)
    found = source.cache.get(key, compute)
    return found if found.fragments.ids.size else None


def seen_ground(source: ClickSource, boxes: Sequence[Box]) -> Ground:
    """The ground of some windows, as the network sees them.

    Args:
        source: of features.
        boxes: windows; between them, in their hull, nothing is known.
    """
    whole = hull(boxes)

    def compute() -> Ground:
        evidence = _evidence(source, boxes, whole)
        fragments = group_volume(evidence, source.voxel_size_nm, source.inference)
        return _ground(source, whole, fragments)

    kind = f"ground {source.heads} {sorted(boxes) if len(boxes) > 1 else ''}"
    return source.cache.get(WindowKey(source.weights, source.image_key, whole, kind), compute)


def _ground(source: ClickSource, box: Box, fragments: Fragments) -> Ground:
    crumb = source.inference.min_object_voxels
    cells = fragments.objects(source.joining, source.hierarchy, crumb).of_fragments
    return Ground(box, fragments, source.joining.logits(fragments.graph), cells)


def _evidence(source: ClickSource, boxes: Sequence[Box], whole: Box) -> Evidence:
    """Affinities, classes and foreground of some windows; where they overlap, of the one whose
    middle is nearer."""
    offsets = pair_offsets(source.voxel_size_nm, source.inference.long_range, source.window)
    shape = box_shape(whole)
    evidence = Evidence(
        np.zeros((len(offsets), *shape), np.float16),
        offsets,
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.bool_),
        source.hierarchy.num_classes + FINE_VALUE,
    )
    best = np.zeros(shape, np.float32)
    of_objects = torch.tensor([c.object for c in source.hierarchy.classes])
    settings = source.hierarchy, source.inference, source.voxel_size_nm
    net = source.grouping or source.net
    way, plain = Way.of(net), with_study_heads(net, None)
    heads = HEADS if way.asks_network else (CLASSES,)
    for box in boxes:
        said = source.outputs(box, heads, plain)
        features = source.feature_volume(box)
        with torch.inference_mode():
            classes, boundary = (
                said if study is None else said_by(study, said, features, source.beside(box, study))
                for study in (way.classes, way.boundary)
            )
            p = classes[CLASSES].softmax(1)
            pairs = affinities_of(boundary, p, offsets, *settings, alone=way.alone)
        at = box_slices(shift_box(box, minus(box_origin(whole))))
        share = centrality(box, source.shape)
        better = share > best[at]
        best[at][better] = share[better]
        threshold = source.inference.object_threshold
        evidence.write_classes(at, p[0], of_objects.to(p.device), threshold, better)
        evidence.write_pairs(at, pairs[0], better)
    return evidence
