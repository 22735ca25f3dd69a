"""The sub-commands `import` and `export` of the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lib.configs.load import hierarchy_of, load_settings
from lib.labels.value_maps import ENCODINGS
from lib.volumes.exporting import ExportRequest, export_item
from lib.volumes.import_plan import ImportRequest, plan_import
from lib.volumes.importing import import_items
from lib.volumes.nifti import UNIT_NM
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import LabelCounts


def add_import_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `import` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "import",
        help="turn a volume into study items",
        description="Read HDF5, TIFF, section folders, NIfTI, NRRD, Zarr, N5 or Precomputed "
        "and write study items with canonical labels.",
    )
    parser.add_argument("source", help="PATH or PATH:DATASET of the image")
    parser.add_argument("--studies", required=True, metavar="DIR", help="the study's folder")
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
    _add_label_options(parser)
    parser.add_argument("--replace", action="store_true", help="write over existing items")
    parser.add_argument("--conf", metavar="FILE", help="configuration with the label hierarchy")
    parser.set_defaults(run=run_import)
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
    """Import as the command line says; a fault is one line on stderr and exit status 1."""
    try:
        _import(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def add_export_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `export` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="write an item's labels in the frame of its source volume, or the item as DICOM",
        description="Write canonical labels to HDF5, TIFF, Zarr or Precomputed, at the "
        "item's place in its source. Items of one volume can go into one target, one by one. "
        "With --dicom, write image and labels as a DICOM series for OHIF and DICOM stores.",
    )
    parser.add_argument("item", help="item id")
    parser.add_argument(
        "target", metavar="TARGET",
        help="FILE.h5[:DATASET], FILE.tif, DIR.zarr, or precomputed://DIR; a new DIR for DICOM",
    )  # fmt: skip
    parser.add_argument(
        "--dicom", nargs="?", const="CT", metavar="MODALITY",
        help="write a DICOM series, one file a section (modality CT unless named: OHIF offers "
        "its MONAI Label mode for CT and MR, and the server looks for CT)",
    )  # fmt: skip
    parser.add_argument(
        "--with-labels", action="store_true", help="with --dicom: also labels.dcm, a DICOM SEG"
    )
    parser.add_argument("--studies", required=True, metavar="DIR", help="the study's folder")
    parser.add_argument("--label", choices=("final", "instance"), default="final")
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="canonical", help="of class labels"
    )
    parser.add_argument(
        "--crop-only", action="store_true",
        help="write the item's voxels alone, not the whole frame of its source",
    )  # fmt: skip
    parser.add_argument("--replace", action="store_true", help="write over an existing file")
    parser.add_argument("--conf", metavar="FILE", help="configuration with the label hierarchy")
    parser.set_defaults(run=run_export)
    return parser


def run_export(args: argparse.Namespace) -> int:
    """Export as the command line says; a fault is one line on stderr and exit status 1."""
    try:
        study = Study(args.studies, hierarchy_of(load_settings(args.conf)))
        item = study.item(args.item)
        if args.dicom:
            print(_export_dicom(item, Path(args.target), args.dicom, args.with_labels))
            return 0
        request = ExportRequest(
            args.target, args.label, args.encoding, args.crop_only, args.replace
        )
        total = item.shape[0] * item.shape[1] * item.shape[2]
        with _bar(total, f"export {args.item}") as bar:
            written = export_item(request, item, bar.update)
        print(written)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _export_dicom(item: StudyItem, folder: Path, modality: str, with_labels: bool) -> str:
    """Write a series; says what a viewer and a store need to know of it."""
    from lib.dicom.labels import export_item as export_dicom

    series = export_dicom(item, folder, modality=modality, with_labels=with_labels)
    return (
        f"{folder}: {len(series.files)} sections\n"
        f"  StudyInstanceUID  {series.study_uid}\n"
        f"  SeriesInstanceUID {series.series_uid}\n"
        "  in OHIF: ADDRESS/ohif/monai-label?StudyInstanceUIDs=" + series.study_uid
    )


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


def _import(args: argparse.Namespace) -> None:
    settings = load_settings(args.conf)
    hierarchy = hierarchy_of(settings)
    unit = args.spacing_unit or settings.data.spacing_unit
    study = Study(args.studies, hierarchy, settings.data.spacing_unit)
    request = ImportRequest(
        source=args.source,
        item_id=args.id,
        crop=args.crop,
        splits=tuple(args.split),
        tiles=tuple(args.tiles) if args.tiles else None,
        voxel_size_nm=_voxel_size(args.voxel_size_nm),
        semantic=args.semantic,
        instance=args.instance,
        encoding=args.encoding,
        mapping=args.mapping,
        fully_annotated=args.fully_annotated,
        true_instances=not args.derived_instances,
        spacing_unit=unit,
        replace=args.replace,
    )
    plan = plan_import(request, study)
    with _bar(plan.voxels, "import") as bar:
        done = import_items(plan, study, bar.update)
    for item, counts in done:
        print(summary(item, counts))


def _voxel_size(numbers: list[float] | None) -> tuple[float, float, float] | None:
    if numbers is None:
        return None
    if len(numbers) not in (1, 2, 3):
        raise ValueError(f"--voxel-size-nm: expected 1, 2 or 3 lengths, found {len(numbers)}")
    if len(numbers) == 2:
        return numbers[0], numbers[1], numbers[0]
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number above 0")
    return value


def _bar(total: int, text: str) -> Any:
    return tqdm(total=total, desc=text, unit="voxel", unit_scale=True, disable=None)
