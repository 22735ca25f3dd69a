"""A study's items by workers: each is a blockwise run, its label is written when that is whole.

<label's folder>/.ID.TASK.zarr   the run, until the labels of all items are there
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.blocks.plan import FOLDER, BlockPlan
from lib.blocks.planning import plan_of
from lib.blocks.run import begin, check_space
from lib.configs.settings import Settings
from lib.prediction.commands import TAGS
from lib.prediction.learned import Stored
from lib.prediction.options import learned_from
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import whole_box
from lib.volumes.errors import DiskError, VolumeError
from lib.volumes.options import existing_study
from lib.volumes.readers.opening import open_file, open_source
from lib.volumes.readers.region import REGION, read_region
from lib.volumes.source import Source
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import label_file, write_label


@dataclass(frozen=True)
class ItemRun:
    """The run of one item.

    Args:
        out: where its blocks lie.
        plan: of the run.
        target: the label.
    """

    out: Path
    plan: BlockPlan
    target: Path

    def write(self) -> str:
        """Write the label of a run that is whole; a line about it."""
        layer = self.plan.layers[0]
        source = open_source(str(self.out / layer))
        values: Any = source
        note = ""
        if layer == "objects":
            values = Numbered(source, self.out)
            note = f": {values.count} objects"
        with StagedFiles() as staged:
            write_label(staged, self.target, values, self.plan.voxel_size_nm)
            staged.commit()
        source.close()
        return f"{self.target}{note}"

    def remove(self) -> None:
        """Remove the blocks."""
        shutil.rmtree(self.out)


class Numbered:
    """Objects of a run, numbered from 1 as labels hold them.

    Args:
        source: (X, Y, Z) uint64.
        out: of the run.
    """

    dtype = np.dtype(np.uint32)

    def __init__(self, source: Source, out: Path) -> None:
        self._source = source
        with np.load(out / FOLDER / "objects.npz") as table:
            self._ids = np.sort(table["ids"])
        self.shape = source.shape

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self._ids)

    def __getitem__(self, index: Any) -> NDArray[np.uint32]:
        ids = np.asarray(self._source[index])
        numbers = np.searchsorted(self._ids, ids).astype(np.uint32) + np.uint32(1)
        numbers[ids == 0] = 0
        return numbers


def plan_items(args: argparse.Namespace, settings: Settings) -> tuple[list[ItemRun], list[str]]:
    """The runs of a study's items, begun or found; and why items are left out.

    Raises:
        ValueError: an item that was named cannot be read, or none can.
    """
    if args.task == "both" or args.image is not None or args.box:
        raise ValueError("--studies with workers: expected --task segmentation or instances alone")
    study: Study = existing_study(args.studies, settings)
    learned = learned_from(args, settings)
    listing = study.listing()
    items = [study.item(i) for i in args.items] if args.items else study.items_of(listing)
    left_out = [f"{s.name}: {s.reason}" for s in ([] if args.items else listing.skipped)]
    runs = []
    for item in items:
        try:
            runs.append(_run_of(args, settings, item, learned))
        except VolumeError as error:
            if args.items or isinstance(error, DiskError):
                raise
            left_out.append(str(error))
    if not runs:
        raise ValueError(f"study {study.root}: no items to predict; import an image first")
    return runs, left_out


def _run_of(
    args: argparse.Namespace, settings: Settings, item: StudyItem, learned: Stored | None
) -> ItemRun:
    target = label_file(item.study.root, TAGS[args.task], item.id)
    if args.out is not None:
        target = args.out / target.name
    out = target.parent / f".{item.id}.{args.task}.zarr"
    path, contrast = item.image_path, None
    if path.name.endswith(REGION):  # what lies around the box is the network's context
        region = read_region(path)
        where, box, contrast = region.text, region.box, region.contrast
        source = open_source(where)
    else:
        where, source = str(path.absolute()), open_file(path, item.study.spacing_unit)
        box = whole_box(source.shape)
    plan, hierarchy, _ = plan_of(
        args,
        settings,
        out,
        where,
        source,
        item.voxel_size_nm,
        box,
        learned,
        contrast,
        item.bright_membranes,
    )
    check_space(plan, target.parent)
    return ItemRun(out, begin(out, plan, hierarchy, learned), target)
