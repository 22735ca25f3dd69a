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

from lib.blocks.plan import BlockPlan, plan_path, read_plan
from lib.configs.settings import Settings
from lib.networks.devices import choose_device
from lib.prediction.classes import Level
from lib.prediction.predictor import Predictor, load_predictor
from lib.volumes.boxes import Box, Triple, box_origin, shift_box, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource


@dataclass(frozen=True)
class Stage:
    """A step of the run.

    Args:
        name: in the ledger.
        blocks: indices.
    """

    name: str
    blocks: list[Triple]


def stages(plan: BlockPlan, out: Path) -> Iterator[Stage]:
    """The steps of a run; each needs those before it whole."""
    first = plan.image(out, plan.layers[0])
    yield Stage("predict", first.blocks(0))
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
        """The whole source: what lies around a box is the network's context."""
        source = open_source(self.plan.source)
        if source.shape != self.plan.source_shape:
            raise VolumeError(
                source.info.where, f"shape {source.shape}",
                f"{self.plan.source_shape} as when the run began",
                "start anew in another --out",
            )  # fmt: skip
        return RegionSource(source, whole_box(source.shape), self.plan.contrast)

    @cached_property
    def predictor(self) -> Predictor:
        """The weights, as the plan wants them run."""
        plan, path = self.plan, Path(self.plan.weights)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != plan.weights_sha256:
            raise VolumeError(
                path, f"weights {found[:12]}", f"{plan.weights_sha256[:12]} as when the run began"
            )
        inference = {**plan.inference, "tile_bytes": plan.tile_bytes}
        settings = Settings.model_validate({"inference": inference})
        return load_predictor(path, settings, choose_device(plan.device or None))

    def core(self, index: Triple) -> Box:
        """What a block writes, in the source's voxels."""
        image = self.plan.image(self.out, self.plan.layers[0])
        return shift_box(image.block_box(0, index), box_origin(self.plan.box))


def run_block(out: str, stage: str, index: Triple) -> dict[str, Any]:
    """Do one block of one stage.

    Raises:
        ValueError: in words, what cannot be read or written.
    """
    work = workspace(out)
    kind, *words = stage.split(" ")
    if kind == "predict":
        return _predict(work, index)
    assert kind == "coarsen", stage
    work.plan.image(work.out, words[0]).coarsen(int(words[1]), index)
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
    plan = work.plan
    classes = work.predictor.classes(
        work.image, plan.voxel_size_nm, cast(Level, plan.level), box=work.core(index)
    )
    plan.image(work.out, "classes").write(index, classes)
    counts = np.bincount(classes.ravel())
    return {"voxels": {str(v): int(counts[v]) for v in np.flatnonzero(counts)}}
