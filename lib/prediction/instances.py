"""Every object of a volume: affinities -> fragments -> one graph of them -> cells.

The windows give affinities (blended as affinities: embeddings of two windows need not share a
frame of reference) and class maps, which are kept at two bytes a number, on disk where they
are large.
"""

from __future__ import annotations

from pathlib import Path

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.classes import Progress
from lib.prediction.evidence import collect_evidence
from lib.prediction.features import Shelf
from lib.prediction.grouping import Call, call_here, group_volume
from lib.prediction.joining import JoinModel
from lib.prediction.objects import Fragments, Objects
from lib.prediction.scratch import Scratch
from lib.volumes.contrast import LazyImage


def predict_objects(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    joining: JoinModel | None = None,
    progress: Progress | None = None,
    scratch_folder: Path | None = None,
    call: Call = call_here,
    shelf: Shelf | None = None,
) -> Objects:
    """All cells of a volume, with their classes; see `predict_fragments`."""
    found = predict_fragments(
        net,
        volume,
        voxel_size_nm,
        inference,
        hierarchy=hierarchy,
        progress=progress,
        scratch_folder=scratch_folder,
        call=call,
        shelf=shelf,
    )
    return found.objects(joining or JoinModel(), hierarchy, inference.min_object_voxels)


def predict_fragments(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
    scratch_folder: Path | None = None,
    call: Call = call_here,
    shelf: Shelf | None = None,
) -> Fragments:
    """The fragments of a volume and their graph.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        voxel_size_nm: (x, y, z) of the volume.
        inference: windows and blocks.
        hierarchy: of the network; says which classes can be objects.
        progress: called with (windows done, windows in all).
        scratch_folder: where large intermediate arrays go; the system's temporary folder
            when not given.
        call: how the work of a block is called.
        shelf: where the backbone's features are kept for the next run; None: nowhere.
    """
    with Scratch(inference.tile_bytes, scratch_folder) as scratch:
        evidence = collect_evidence(
            net, volume, voxel_size_nm, inference, hierarchy, scratch, progress, shelf
        )
        return group_volume(evidence, voxel_size_nm, inference, call)
