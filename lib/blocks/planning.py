"""The plan of a run: what a command, or an item of a study, asks for."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from lib.blocks.fragments import sampled_scale
from lib.blocks.plan import BlockPlan, Task, cut, read_plan
from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.forward import window_size
from lib.prediction.learned import Stored
from lib.prediction.predictor import load_predictor
from lib.prediction.window_grid import WindowGrid, window_grid
from lib.volumes.boxes import (
    Box,
    box_shape,
    contains,
    fill_box,
    minus,
    parse_box,
    shift_box,
    show_box,
    whole_box,
)
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource, volume_contrast
from lib.volumes.readers.remote import is_remote
from lib.volumes.record import check_voxel_size
from lib.volumes.source import Source

FREE = ("cache_bytes", "tile_bytes", "click_window", "click_window_limit", "click_fragments")
"""Keys of `inference` that a dense result does not depend on."""


def make_plan(
    args: argparse.Namespace, settings: Settings, learned: Stored | None
) -> tuple[BlockPlan, LabelHierarchy, str]:
    """The plan of a command, the network's classes, and a line about the cut."""
    source = open_source(args.image, "image", settings.data.spacing_unit)
    size = tuple(args.voxel_size_nm) if args.voxel_size_nm else source.info.voxel_size_nm
    if size is None:
        why = source.info.size_fault or "no voxel size"
        raise VolumeError(args.image, why, remedy="give --voxel-size-nm X Y Z")
    check_voxel_size(size, args.image)
    voxel = (float(size[0]), float(size[1]), float(size[2]))
    where = args.image if is_remote(args.image) else str(Path(args.image).absolute())
    box = _box(args.box, source)
    return plan_of(
        args, settings, args.out, where, source, voxel, box, learned,
        bright_membranes=settings.data.bright_membranes,
    )  # fmt: skip


def plan_of(
    args: argparse.Namespace,
    settings: Settings,
    out: Path,
    where: str,
    source: Source,
    voxel: tuple[float, float, float],
    box: Box,
    learned: Stored | None,
    contrast: tuple[float, float] | None = None,
    bright_membranes: bool = False,
) -> tuple[BlockPlan, LabelHierarchy, str]:
    """The plan of a run over a box of a source.

    Args:
        out: of the run; what was sampled when it began holds.
        where: the source as tasks open it.
        source: opened; it is closed.
        voxel: its voxel size, nm.
        box: what is predicted, in its voxels.
        learned: by a study, and used; None: nothing.
        contrast: its window of intensities; None: it is sampled.
        bright_membranes: whether its membranes are brighter than what they enclose.
    """
    predictor = load_predictor(args.weights, settings, "cpu")
    if learned is not None:
        predictor = learned.on(predictor)
    frame = predictor.frame(source.shape, voxel)
    core, chunk = cut(frame, box_shape(box), settings)
    inference = settings.inference.model_dump(mode="json")
    before = read_plan(out)
    if before is not None:
        contrast = before.contrast
    else:
        low, high = contrast or volume_contrast(source)
        contrast = (high, low) if bright_membranes else (low, high)
    level = args.level or settings.inference.voxel_level
    scale = None if before is None else before.scale
    if before is None and (args.task != "segmentation" or level == "object"):
        whole = RegionSource(source, whole_box(source.shape), contrast)
        found = sampled_scale(
            predictor, frame.view(whole), frame.network_voxel_size_nm, frame.network_box(box)
        )
        scale = (found.strong, found.inside)
    plan = BlockPlan(
        source=where,
        source_shape=source.shape,
        origin=source.info.origin,
        voxel_size_nm=voxel,
        box=box,
        core=core,
        chunk=chunk,
        contrast=contrast,
        task=cast(Task, args.task),
        level=level,
        weights=str(args.weights.absolute()),
        weights_sha256=hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        inference={key: value for key, value in inference.items() if key not in FREE},
        tile_bytes=settings.blocks.tile_bytes,
        scale=scale,
        device=args.device or "",
        learned="" if learned is None else learned.identity,
    )
    source.close()
    image = plan.image(out, plan.layers[0])
    grid = window_grid(
        frame.network_shape, window_size(predictor.net, settings.inference),
        settings.inference.overlap,
    )  # fmt: skip
    start = (box[0][0], box[1][0], box[2][0])
    cores = [shift_box(image.block_box(0, index), start) for index in image.blocks(0)]
    told = (
        f"{out}: {len(cores)} blocks of {' x '.join(map(str, core))} voxels, "
        f"{price(grid, [frame.network_box(c) for c in cores]):.2f} times the windows of one run "
        "over the whole source"
    )
    return plan, predictor.hierarchy, told


def price(grid: WindowGrid, boxes: Sequence[Box]) -> float:
    """Windows evaluated block by block, as a multiple of those of one run over everything."""
    spent = sum(math.prod(len(grid.touching(a, box[a])) for a in range(3)) for box in boxes)
    return spent / grid.count


def _box(text: str | None, source: Source) -> Box:
    """--box, counted from the source's first voxel.

    Raises:
        VolumeError: it holds no voxel, or reaches outside.
    """
    bounds = whole_box(source.shape, source.info.origin)
    if not text:
        return whole_box(source.shape)
    box = fill_box(parse_box(text), bounds)
    if min(box_shape(box)) < 1 or not contains(bounds, box):
        raise VolumeError(
            source.info.where, f"--box {text}", f"a box with voxels inside {show_box(bounds)}"
        )
    return shift_box(box, minus(source.info.origin))
