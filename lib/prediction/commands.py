"""The `predict` command: maps of a study's items, or of one file."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lib.configs.settings import Settings
from lib.prediction.options import (
    add_learned_option,
    add_predictor_options,
    learned_from,
    predictor_from,
    window_bar,
)
from lib.prediction.predictor import Predictor
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.errors import DiskError, VolumeError
from lib.volumes.import_plan import default_id
from lib.volumes.lacking import lacking
from lib.volumes.options import existing_study
from lib.volumes.readers.opening import open_source
from lib.volumes.seen import as_seen
from lib.volumes.study import Study
from lib.volumes.writing import label_file, write_label

TAGS = {"segmentation": "original", "instances": "instance_predicted"}
"""Where a task's map of a study item goes: labels/<tag>/."""


def add_predict_parser(
    subparsers: Any, more_tasks: tuple[str, ...] = ()
) -> argparse.ArgumentParser:
    """Declare `predict` on the command line's sub-parsers.

    Args:
        more_tasks: further choices of --task, that the caller sees to.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predict",
        help="segment a study's items or a file",
        description="Write class maps or instance maps as .nii.gz, for items of a study "
        "(labels/original or labels/instance_predicted) or for one image file.",
    )
    parser.add_argument("--studies", type=Path, metavar="DIR", help="the study's folder")
    parser.add_argument("--items", nargs="+", default=[], metavar="ID", help="default: all items")
    parser.add_argument("--image", metavar="PATH[:DATASET]", help="a volume instead of a study")
    parser.add_argument(
        "--voxel-size-nm",
        nargs=3,
        type=float,
        metavar="NM",
        help="x y z of --image, where the file does not say",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for a study's maps, .nii.gz or .zarr for --image"
    )
    parser.add_argument("--task", choices=(*TAGS, *more_tasks), default="segmentation")
    parser.add_argument(
        "--level",
        choices=("object", "fine", "coarse", "fallback"),
        help="of classes: one for each cell, or voxel by voxel "
        "(default: as inference.level says, fine where that is object)",
    )
    add_learned_option(parser)
    add_predictor_options(parser)
    return parser


def run_predict(args: argparse.Namespace) -> int:
    """Predict as the command line says.

    Returns:
        0.

    Raises:
        ValueError: options that do not go together, or files that cannot be read.
    """
    if (args.studies is None) == (args.image is None):
        raise ValueError("give either --studies DIR or --image FILE")
    settings, predictor = predictor_from(args)
    learned = learned_from(args, settings)
    if learned is not None:
        predictor = learned.on(predictor)
    if args.image is not None:
        name, image, voxel_size, target = _image_job(args, settings)
        print(_predict_one(args, predictor, name, image, voxel_size, target))
    else:
        _predict_items(args, predictor, existing_study(args.studies, settings))
    return 0


def _image_job(
    args: argparse.Namespace, settings: Settings
) -> tuple[str, LazyImage, tuple[float, float, float], Path]:
    """(name, image, voxel size, target) of --image."""
    source = open_source(args.image, "image", settings.data.spacing_unit)
    size = tuple(args.voxel_size_nm) if args.voxel_size_nm else source.info.voxel_size_nm
    if size is None:
        why = source.info.size_fault or "no voxel size"
        raise VolumeError(args.image, why, remedy="give --voxel-size-nm X Y Z")
    for warning in (*source.info.warnings, *lacking(source, whole_box(source.shape))):
        print(f"warning: {warning}", file=sys.stderr)
    stem = default_id(args.image)
    target = args.out or Path(f"{stem}_{args.task}.nii.gz")
    if not target.name.endswith(".nii.gz"):
        raise ValueError(f"--out {target}: expected a name that ends in .nii.gz or .zarr")
    image = as_seen(source, settings.data.bright_membranes)
    return stem, image, (size[0], size[1], size[2]), target


def _predict_items(args: argparse.Namespace, predictor: Predictor, study: Study) -> None:
    """Predict the items that can be read; those that were not asked for by name may fail.

    Raises:
        ValueError: an item that was named cannot be read, or none can.
    """
    listing = study.listing()
    items = [study.item(i) for i in args.items] if args.items else study.items_of(listing)
    left_out = [f"{s.name}: {s.reason}" for s in ([] if args.items else listing.skipped)]
    done = 0
    for item in items:
        target = label_file(study.root, TAGS[args.task], item.id)
        if args.out is not None:
            target = args.out / target.name
        try:
            size = item.voxel_size_nm
            print(_predict_one(args, predictor, item.id, item.open_seen(), size, target))
            done += 1
        except VolumeError as error:
            if args.items or isinstance(error, DiskError):
                raise
            left_out.append(str(error))
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not done:
        raise ValueError(f"study {study.root}: no items to predict; import an image first")


def _predict_one(
    args: argparse.Namespace,
    predictor: Predictor,
    name: str,
    image: LazyImage,
    voxel_size: tuple[float, float, float],
    target: Path,
) -> str:
    note = ""
    values: Any
    with window_bar(args) as show:
        step = partial(show, name)
        if args.task == "segmentation":
            by_object = args.level == "object"
            values = (
                predictor.object_classes(image, voxel_size, step)
                if by_object
                else predictor.classes(image, voxel_size, args.level, step)
            )
        else:
            found = predictor.objects(image, voxel_size, step)
            values = found.ids
            note = f": {found.count} objects, the largest {found.largest_share:.1%} of all"
    with StagedFiles() as staged:
        write_label(staged, target, values, voxel_size)
        staged.commit()
    return f"{target}{note}"
