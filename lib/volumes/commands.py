"""The `import` command: a volume and its labels become study items."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lib.configs.options import add_settings_options, settings_from
from lib.labels.value_maps import ENCODINGS
from lib.volumes.import_plan import ImportRequest, plan_import
from lib.volumes.importing import import_items
from lib.volumes.nifti import UNIT_NM
from lib.volumes.options import add_study_option, open_study, voxel_bar
from lib.volumes.study import StudyItem
from lib.volumes.writing import LabelCounts


def add_import_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `import` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "import",
        help="turn a volume into study items",
        description="Read HDF5, TIFF, section folders, NIfTI, NRRD, MRC, DM3, DM4, Zarr, "
        "N5, WEBKNOSSOS or Precomputed and write study items with canonical labels.",
    )
    parser.add_argument("source", help="PATH or PATH:DATASET of the image")
    add_study_option(parser)
    parser.add_argument("--id", default="", help="item id; by default the file's name")
    parser.add_argument("--crop", default="", metavar="X0:X1,Y0:Y1,Z0:Z1", help="part to import")
    parser.add_argument(
        "--tiles", nargs=3, type=_count, metavar=("X", "Y", "Z"),
        help="cut into items of at most this extent",
    )  # fmt: skip
    parser.add_argument(
        "--split", action="append", default=[], metavar="NAME[=BOX]",
        help="train or val for the whole item, or train=BOX and val=BOX for two items",
    )  # fmt: skip
    parser.add_argument(
        "--voxel-size-nm", nargs="+", type=float, metavar="NM",
        help="x y z; one number for all axes, two for a 2D image; overrides the file",
    )  # fmt: skip
    parser.add_argument(
        "--spacing-unit", choices=tuple(UNIT_NM), help="unit of NIfTI and NRRD spacings"
    )
    parser.add_argument(
        "--missing-sections", choices=("refuse", "unknown", "ignore"), default="refuse",
        help="numbers that a folder of sections lacks: refused, black sections of which nothing "
        "is known, or as if they were not missing",
    )  # fmt: skip
    _add_label_options(parser)
    parser.add_argument(
        "--bright-membranes", action=argparse.BooleanOptionalAction,
        help="membranes are brighter than what they enclose (negatives, backscattered "
        "electrons shown as they are): the network sees the image inverted, viewers as it is",
    )  # fmt: skip
    parser.add_argument("--replace", action="store_true", help="write over existing items")
    parser.add_argument(
        "--lazy", action="store_true",
        help="copy no voxels: items read their box of the source when they are used",
    )  # fmt: skip
    add_settings_options(parser)
    return parser


def _add_label_options(parser: argparse.ArgumentParser) -> None:
    """Options of `import` that say which labels there are and what they mean."""
    parser.add_argument("--semantic", default="", metavar="PATH[:DATASET]", help="class label")
    parser.add_argument(
        "--instance", default="", metavar="PATH[:DATASET]",
        help="object ids; 'none' leaves out those that lie in the same CREMI file",
    )  # fmt: skip
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="canonical",
        help="of the class label: canonical (0 unlabelled, class + 1, 101.. groups, 255 "
        "uncertain) or plan (0..11, 255 or -1 unknown)",
    )  # fmt: skip
    parser.add_argument(
        "--mapping", default="", metavar="FILE", help="YAML: label value -> classes it can be"
    )
    parser.add_argument(
        "--fully-annotated", action="store_true",
        help="voxels without a label are none of the annotated classes; id 0 is no object",
    )  # fmt: skip
    parser.add_argument(
        "--derived-instances", action="store_true",
        help="ids are not ground truth in 3D: leave them out of 3D figures",
    )  # fmt: skip


def run_import(args: argparse.Namespace) -> int:
    """Import as the command line says.

    Returns:
        0.

    Raises:
        ValueError: what cannot be read, with the file, what was found and the remedy.
    """
    settings = settings_from(args)
    study = open_study(args.studies, settings)
    request = ImportRequest(
        source=args.source,
        item_id=args.id,
        crop=args.crop,
        splits=tuple(args.split),
        tiles=tuple(args.tiles) if args.tiles else None,
        voxel_size_nm=tuple(args.voxel_size_nm or ()),
        semantic=args.semantic,
        instance=args.instance,
        encoding=args.encoding,
        mapping=args.mapping,
        fully_annotated=args.fully_annotated,
        true_instances=not args.derived_instances,
        spacing_unit=args.spacing_unit or settings.data.spacing_unit,
        replace=args.replace,
        gaps=args.missing_sections,
        lazy=args.lazy,
        bright_membranes=args.bright_membranes,
    )
    plan = plan_import(request, study)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with voxel_bar(plan.voxels, "import") as bar:
        done = import_items(plan, study, bar.update)
    for item, counts in done:
        print(summary(item, counts))
        if counts.grey is not None and counts.grey[0] == counts.grey[1]:
            print(
                f"warning: {item.id}: every voxel of the image is {counts.grey[0]}; check that "
                "this part of the source holds data",
                file=sys.stderr,
            )
    return 0


def summary(item: StudyItem, counts: LabelCounts) -> str:
    """What was imported, in a few lines."""
    record = item.record
    lines = [
        f"{item.id}: {' x '.join(str(n) for n in item.shape)} voxels (x, y, z) of "
        f"{' x '.join(f'{v:g}' for v in record.voxel_size_nm)} nm"
        + (f", at {record.origin_voxels} of its source" if any(record.origin_voxels) else "")
        + (f", split {record.split}" if record.split else "")
    ]
    if item.has_label("final"):
        shares = sorted(record.known_share.items(), key=lambda kv: -kv[1])
        found = [f"{name} {share:.2%}" for name, share in shares if name != "unknown"]
        lines.append(f"  classes: {', '.join(found) or 'none'}")
        lines.append(f"  unknown: {record.known_share['unknown']:.2%}")
    else:
        lines.append("  classes: no label")
    if item.has_label("instance"):
        share = counts.unknown_ids / max(1, counts.voxels)
        kind = "" if record.true_instances else " (derived)"
        lines.append(f"  objects: {len(counts.objects)}{kind}, unknown {share:.2%} of the voxels")
    return "\n".join(lines)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number above 0")
    return value
