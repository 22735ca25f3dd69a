"""Every object of a volume: embeddings -> affinities -> objects of blocks -> one map.

The windows give affinities (blended as affinities: embeddings of two windows need not share
a frame of reference, distances do) and class maps, which are kept at two bytes a number, on
disk where they are large. Blocks are grouped one by one and their objects matched in the
overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import MAX_CLASSES, LabelHierarchy
from lib.metrics.object_scores import contingency
from lib.networks.model import NeuropilNet
from lib.prediction.affinities import mirrored_correction, pair_affinities
from lib.prediction.classes import FINE_VALUE, Progress
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.forward import WindowForward, window_size
from lib.prediction.grouping import GroupBlock, group_block
from lib.prediction.scratch import Scratch
from lib.prediction.stitching import Block, Size, UnionFind, cut_blocks, same_objects
from lib.prediction.windows import WindowRun, window_grid
from lib.targets.pairs import Offset, pair_offsets
from lib.volumes.boxes import Box, box_slices, intersect, shift_box
from lib.volumes.contrast import LazyImage


@dataclass(frozen=True)
class Objects:
    """The objects of a volume.

    Args:
        ids: (X, Y, Z) uint32, 0 no object, objects 1..N without gaps, numbered in the order
            in which they are met.
        classes: (N + 1,) uint8, the fine class + 1 that most of an object's voxels have; 0 at
            index 0.
        sizes: (N + 1,) int64, voxels of each object; index 0 is what is no object.
    """

    ids: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.sizes) - 1

    @property
    def largest_share(self) -> float:
        """The largest object's share of all object voxels; near 1 means all were merged."""
        total = int(self.sizes[1:].sum())
        return float(self.sizes[1:].max() / total) if total else 0.0


@dataclass(frozen=True)
class Evidence:
    """What the network says about a volume, as the grouping needs it.

    Args:
        affinities: (A, X, Y, Z) float16.
        offsets: A partner offsets.
        classes: (X, Y, Z) uint8, fine class + 1.
        foreground: (X, Y, Z) bool, voxels that can be objects.
    """

    affinities: NDArray[np.float16]
    offsets: tuple[Offset, ...]
    classes: NDArray[np.uint8]
    foreground: NDArray[np.bool_]


def predict_instances(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
    out: NDArray[np.uint32] | None = None,
    scratch_folder: Path | None = None,
) -> NDArray[np.uint32]:
    """The instance map of a volume; see `predict_objects`."""
    return predict_objects(
        net,
        volume,
        voxel_size_nm,
        inference,
        hierarchy=hierarchy,
        progress=progress,
        out=out,
        scratch_folder=scratch_folder,
    ).ids


def predict_objects(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
    out: NDArray[np.uint32] | None = None,
    scratch_folder: Path | None = None,
    group: GroupBlock = group_block,
    shelf: Shelf | None = None,
) -> Objects:
    """All objects of a volume, with their classes.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        voxel_size_nm: (x, y, z) of the volume.
        inference: windows, grouping and sizes.
        hierarchy: of the network; says which classes can be objects.
        progress: called with (windows done, windows in all).
        out: where to write the ids, for instance a memory map; made when not given.
        scratch_folder: where large intermediate arrays go; the system's temporary folder
            when not given.
        group: groups one block; a server passes one that leaves its interpreter free.
        shelf: where the backbone's features are kept for the next run; None: nowhere.
    """
    with Scratch(inference.tile_bytes, scratch_folder) as scratch:
        evidence = collect_evidence(
            net, volume, voxel_size_nm, inference, hierarchy, scratch, progress, shelf
        )
        return group_volume(evidence, voxel_size_nm, inference, out, group)


def collect_evidence(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    hierarchy: LabelHierarchy,
    scratch: Scratch,
    progress: Progress | None = None,
    shelf: Shelf | None = None,
) -> Evidence:
    """Run the network over a volume and keep affinities, classes and foreground."""
    grid = window_grid(volume.shape, window_size(net, inference), inference.overlap)
    features = FeatureSource(net, volume, inference.precision, shelf)
    heads = ("semantic", "instance", "affinity")
    forward = WindowForward.over(features, heads, grid, inference.mirror)
    offsets = pair_offsets(voxel_size_nm, inference.long_range, grid.window)
    evidence = Evidence(
        scratch.array((len(offsets), *grid.shape), np.float16),
        offsets,
        scratch.array(grid.shape, np.uint8),
        scratch.array(grid.shape, np.bool_),
    )
    can_be_object = torch.tensor([c.object for c in hierarchy.classes], device=forward.device)

    def evaluate(boxes: Sequence[Box]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        views = list(forward.views(boxes))
        for axes, view in zip(forward.mirrored, views, strict=True):
            p = view["semantic"].softmax(1)
            correction = view.get("affinity")
            if correction is not None and axes:
                correction = mirrored_correction(correction, axes, voxel_size_nm)
            pairs = pair_affinities(
                view["instance"], p, offsets, hierarchy, inference, correction, voxel_size_nm
            )
            found = {"semantic": p / len(views), "pairs": pairs / len(views)}
            total = {name: total[name] + f if total else f for name, f in found.items()}
        return total

    def consume(box: Box, outputs: Mapping[str, Tensor]) -> None:
        where = box_slices(box)
        semantic = outputs["semantic"]
        evidence.classes[where] = (semantic.argmax(0) + FINE_VALUE).to(torch.uint8).cpu().numpy()
        of_objects = semantic[can_be_object].sum(0) >= inference.object_threshold
        evidence.foreground[where] = of_objects.cpu().numpy()
        evidence.affinities[(slice(None), *where)] = outputs["pairs"].half().cpu().numpy()

    WindowRun(
        grid,
        evaluate,
        consume,
        channels=hierarchy.num_classes + len(offsets),
        device=forward.device,
        tile_bytes=inference.tile_bytes,
        batch_size=inference.batch_size,
        pair_offsets={"pairs": offsets},
        progress=progress,
    ).run()
    return evidence


def group_volume(
    evidence: Evidence,
    voxel_size_nm: Sequence[float],
    inference: InferenceSettings,
    out: NDArray[np.uint32] | None = None,
    group: GroupBlock = group_block,
) -> Objects:
    """Group all voxels of a volume, block by block, deterministically.

    Args:
        evidence: of the whole volume.
        voxel_size_nm: (x, y, z).
        inference: method, block size and the least size of an object.
        out: (X, Y, Z) uint32 to write to; made when not given.
        group: groups one block.
    """
    shape = evidence.classes.shape
    ids = np.zeros(shape, np.uint32) if out is None else out
    blocks = cut_blocks(shape, inference.instance_block, _block_overlap(voxel_size_nm, inference))
    by_index = {block.index: block for block in blocks}
    joined = UnionFind()
    strips: dict[tuple[Size, Size], NDArray[np.uint32]] = {}
    for block in blocks:
        where = box_slices(block.outer)
        found = group(
            np.asarray(evidence.affinities[(slice(None), *where)]),
            evidence.offsets,
            np.asarray(evidence.foreground[where]),
            inference,
        )
        found[found > 0] += np.uint32(joined.grow(int(found.max())))
        ids[box_slices(block.core)] = _piece(found, block, block.core)
        for before in block.previous():
            strip = strips.pop((before, block.index))
            for a, b in same_objects(strip, _piece(found, block, _shared(by_index[before], block))):
                joined.join(a, b)
        for after in block.following():
            if after in by_index:  # only the overlap with blocks still to come is kept
                strip = _piece(found, block, _shared(block, by_index[after]))
                strips[block.index, after] = strip.copy()
    roots = joined.roots()
    for block in blocks:
        where = box_slices(block.core)
        ids[where] = roots[ids[where]]
    return finish(ids, evidence.classes, blocks, inference.min_object_voxels)


def finish(
    ids: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    blocks: Sequence[Block],
    min_voxels: int,
) -> Objects:
    """Remove tiny objects, number the rest from 1 and find their classes, in place.

    Args:
        ids: (X, Y, Z) uint32, any ids.
        classes: (X, Y, Z) uint8 fine class + 1.
        blocks: the pieces to go through.
        min_voxels: smaller objects are removed.
    """
    highest = max((int(ids[box_slices(b.core)].max()) for b in blocks), default=0)
    votes = np.zeros((highest + 1, MAX_CLASSES + FINE_VALUE), np.int64)
    order: dict[int, None] = {}
    for block in blocks:
        where = box_slices(block.core)
        table = contingency(ids[where].astype(np.int64), classes[where])
        votes[table.truth, table.guess] += table.counts
        order.update(dict.fromkeys(table.truth.tolist()))
    sizes = votes.sum(1)
    kept = [i for i in order if i > 0 and sizes[i] >= min_voxels]
    renamed = np.zeros(highest + 1, np.uint32)
    renamed[kept] = np.arange(1, len(kept) + 1)
    for block in blocks:
        where = box_slices(block.core)
        ids[where] = renamed[ids[where]]
    final_sizes = np.concatenate([[int(sizes.sum() - sizes[kept].sum())], sizes[kept]])
    best = np.concatenate([[0], votes[kept].argmax(1)]).astype(np.uint8)
    return Objects(ids, best, final_sizes.astype(np.int64))


def _block_overlap(
    voxel_size_nm: Sequence[float], inference: InferenceSettings
) -> tuple[int, int, int]:
    """The same overlap in nm along each axis, at least two sections and below half a block."""
    finest = min(voxel_size_nm)
    overlap = [
        min(max(round(inference.instance_overlap * finest / v), 2), (size - 1) // 2)
        for v, size in zip(voxel_size_nm, inference.instance_block, strict=True)
    ]
    return overlap[0], overlap[1], overlap[2]


def _shared(one: Block, other: Block) -> Box:
    """The voxels that two neighbours both segment."""
    shared = intersect(one.outer, other.outer)
    assert shared is not None, (one, other)
    return shared


def _piece(labels: NDArray[np.uint32], block: Block, box: Box) -> NDArray[np.uint32]:
    """The part of a block's labels that lies in a box of the volume."""
    origin = tuple(-a for a, _ in block.outer)
    return labels[box_slices(shift_box(box, (origin[0], origin[1], origin[2])))]
