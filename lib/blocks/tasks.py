"""What is done with one block: a function of (output folder, stage, index) and of nothing else.

Each process opens source and weights once and keeps them. Doing a block twice writes the same
bytes, so that a block whose worker died is simply done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lib.blocks.cells import classes_by_cells, count_votes, name_cells_of
from lib.blocks.contacts import Ids
from lib.blocks.fragments import fragments_in
from lib.blocks.objects import join_fragments, objects_of
from lib.blocks.parts import contacts_between, save_part
from lib.blocks.plan import FINE, FRAGMENTS, BlockPlan, learned_path, plan_path, read_plan
from lib.configs.settings import Settings
from lib.networks.devices import choose_device
from lib.prediction.boundary import BoundaryScale
from lib.prediction.classes import Level
from lib.prediction.learned import Stored, read_heads
from lib.prediction.predictor import Predictor, load_predictor
from lib.volumes.boxes import Box, Triple, box_origin, box_slices, minus, shift_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource


@dataclass(frozen=True)
class Stage:
    """A step of the run.

    Args:
        name: in the ledger.
        blocks: indices.
        whole: it is done at once, and where the driver is: it may take more memory than a worker
            has for a block.
    """

    name: str
    blocks: list[Triple]
    whole: bool = False


def stages(plan: BlockPlan, out: Path) -> Iterator[Stage]:
    """The steps of a run; each needs those before it whole."""
    first = plan.image(out, plan.layers[0])
    yield Stage("predict", first.blocks(0))
    if plan.joins:
        yield Stage("contacts", first.blocks(0))
        yield Stage("join", [(0, 0, 0)], whole=True)
    if "objects" in plan.layers:
        yield Stage("objects", first.blocks(0))
    if plan.by_object:
        yield Stage("votes", first.blocks(0))
        yield Stage("name", [(0, 0, 0)], whole=True)
        yield Stage("classes", first.blocks(0))
    for layer in plan.layers:
        image = plan.image(out, layer)
        for level in range(1, len(image.levels)):
            yield Stage(f"coarsen {layer} {level}", image.blocks(level))


class Workspace:
    """What tasks of one output share in one process.

    Args:
        out: the output's folder.
        plan: of the run.
    """

    def __init__(self, out: Path, plan: BlockPlan) -> None:
        self.out, self.plan = out, plan

    @cached_property
    def image(self) -> RegionSource:
        """The source: what lies around the box is the network's context.

        It begins so that one of the network's voxels begins where the box does, as blocks then
        all do: two blocks would else both count what lies in a voxel that they share.
        """
        source = open_source(self.plan.source)
        if source.shape != self.plan.source_shape:
            raise VolumeError(
                source.info.where, f"shape {source.shape}",
                f"{self.plan.source_shape} as when the run began",
                "start anew in another --out",
            )  # fmt: skip
        frame = self.predictor.frame(source.shape, self.plan.voxel_size_nm)
        spans = [(0, n) for n in source.shape]
        for axis, bins in zip(frame.order, frame.bins, strict=True):
            spans[axis] = (self.plan.box[axis][0] % bins, source.shape[axis])
        return RegionSource(source, (spans[0], spans[1], spans[2]), self.plan.contrast)

    @cached_property
    def predictor(self) -> Predictor:
        """The weights, as the plan wants them run."""
        return self._loaded(choose_device(self.plan.device or None))

    @cached_property
    def without_device(self) -> Predictor:
        """The same where no network is run: cells are joined and named by what goes with it."""
        return self._loaded(torch.device("cpu"))

    def _loaded(self, device: torch.device) -> Predictor:
        plan, path = self.plan, Path(self.plan.weights)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != plan.weights_sha256:
            raise VolumeError(
                path, f"weights {found[:12]}", f"{plan.weights_sha256[:12]} as when the run began"
            )
        inference = {**plan.inference, "tile_bytes": plan.tile_bytes}
        settings = Settings.model_validate({"inference": inference})
        predictor = load_predictor(path, settings, device)
        return self._learned().on(predictor) if plan.learned else predictor

    def _learned(self) -> Stored:
        """What a study had learned when the run began."""
        path = learned_path(self.out)
        try:
            stored = read_heads(path)
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise VolumeError(
                path, f"cannot be read ({type(error).__name__}: {error})",
                "what the study had learned when the run began", "start anew in another --out",
            ) from error  # fmt: skip
        if stored.identity != self.plan.learned:
            raise VolumeError(
                path, f"study heads {stored.identity}",
                f"{self.plan.learned} as when the run began", "start anew in another --out",
            )  # fmt: skip
        return stored

    def core(self, index: Triple) -> Box:
        """What a block writes, in the image's voxels."""
        image = self.plan.image(self.out, self.plan.layers[0])
        start = box_origin(shift_box(self.plan.box, minus(box_origin(self.image.box))))
        return shift_box(image.block_box(0, index), start)


def run_block(out: str, stage: str, index: Triple) -> dict[str, Any]:
    """Do one block of one stage.

    Raises:
        ValueError: in words, what cannot be read or written.
    """
    work = workspace(out)
    kind, *words = stage.split(" ")
    if kind == "predict":
        return _predict(work, index)
    if kind == "contacts":
        frame = work.predictor.frame(work.image.shape, work.plan.voxel_size_nm)
        blocks = work.plan.image(work.out, FRAGMENTS).blocks(0)
        found = contacts_between(work.out, index, blocks, frame.network_voxel_size_nm)
        return {"contacts": found}
    if kind == "join":
        return join_fragments(work.out, work.without_device)
    if kind == "objects":
        work.plan.image(work.out, "objects").write(index, _objects(work, index))
        return {}
    if kind in ("votes", "name", "classes"):
        return _by_cells(work, kind, index)
    assert kind == "coarsen", stage
    work.plan.image(work.out, words[0]).coarsen(int(words[1]), index)
    return {}


def _objects(work: Workspace, index: Triple) -> Ids:
    """The objects of a block; fragments are joined."""
    fragments = work.plan.image(work.out, FRAGMENTS)
    return objects_of(work.out, fragments.read(fragments.block_box(0, index)))


def _by_cells(work: Workspace, stage: str, index: Triple) -> dict[str, Any]:
    """A step of the class map at the level of objects."""
    out, image, predictor = work.out, work.plan.image(work.out, FINE), work.without_device
    if stage == "name":
        return name_cells_of(out, image.blocks(0), predictor)
    fine, cells = image.read(image.block_box(0, index)), _objects(work, index)
    if stage == "votes":
        return count_votes(out, index, fine, cells, predictor.hierarchy)
    number = image.blocks(0).index(index)
    classes = classes_by_cells(out, number, fine, cells, predictor)
    work.plan.image(out, "classes").write(index, classes)
    return {}


def workspace(out: str) -> Workspace:
    """The output as this process has it open."""
    return _workspace(out, plan_path(Path(out)).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _workspace(out: str, written: int) -> Workspace:
    plan = read_plan(Path(out))
    assert plan is not None, out
    return Workspace(Path(out), plan)


def _predict(work: Workspace, index: Triple) -> dict[str, Any]:
    if work.plan.joins:
        return _predict_objects(work, index)
    counts = np.bincount(_predict_classes(work, index).ravel())
    return {"voxels": {str(v): int(counts[v]) for v in np.flatnonzero(counts)}}


def _predict_classes(work: Workspace, index: Triple) -> NDArray[np.uint8]:
    plan = work.plan
    level, layer = ("fine", FINE) if plan.by_object else (plan.level, "classes")
    classes = work.predictor.classes(
        work.image, plan.voxel_size_nm, cast(Level, level), box=work.core(index)
    )
    plan.image(work.out, layer).write(index, classes)
    return classes


def _predict_objects(work: Workspace, index: Triple) -> dict[str, Any]:
    plan, predictor = work.plan, work.predictor
    assert plan.scale is not None
    core = work.core(index)
    frame = predictor.frame(work.image.shape, plan.voxel_size_nm)
    network = frame.network_box(core)
    found = fragments_in(
        predictor, frame.view(work.image), frame.network_voxel_size_nm, network,
        BoundaryScale(*plan.scale), work.out,
    )  # fmt: skip
    whole = frame.viewer_box(network)
    at = box_slices(shift_box(core, minus(box_origin(whole))))
    ids = frame.mask_to_viewer(found.ids, network)[at]
    plan.image(work.out, FRAGMENTS).write(index, ids)
    if "classes" in plan.layers:
        if plan.level in ("fine", "object") and predictor.one_network:
            classes = frame.mask_to_viewer(found.classes, network)[at]
            plan.image(work.out, FINE if plan.by_object else "classes").write(index, classes)
        else:  # the fragments' classes are not those that are asked for
            _predict_classes(work, index)
    save_part(work.out, index, found)
    return {"fragments": len(found.voted), "contacts": len(found.contacts.edges)}
