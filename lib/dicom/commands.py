"""The `export` command: labels in the frame of their source, or image and labels as DICOM.

It lies in this room because it knows both ways out; those to plain files are lib/volumes'.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from lib.configs.options import add_settings_options, settings_from
from lib.dicom.labels import export_item as export_series_of
from lib.labels.value_maps import ENCODINGS
from lib.volumes.exporting import ExportRequest, export_item
from lib.volumes.options import add_study_option, existing_study, voxel_bar
from lib.volumes.study import StudyItem


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
    add_study_option(parser)
    parser.add_argument("--label", choices=("final", "instance"), default="final")
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="canonical", help="of class labels"
    )
    parser.add_argument(
        "--crop-only", action="store_true",
        help="write the item's voxels alone, not the whole frame of its source",
    )  # fmt: skip
    parser.add_argument("--replace", action="store_true", help="write over an existing file")
    add_settings_options(parser)
    return parser


def run_export(args: argparse.Namespace) -> int:
    """Export as the command line says.

    Returns:
        0.

    Raises:
        ValueError: what cannot be written, with what was found and the remedy.
    """
    item = existing_study(args.studies, settings_from(args)).item(args.item)
    if args.dicom:
        print(_export_dicom(item, Path(args.target), args.dicom, args.with_labels))
        return 0
    request = ExportRequest(args.target, args.label, args.encoding, args.crop_only, args.replace)
    with voxel_bar(math.prod(item.shape), f"export {args.item}") as bar:
        written = export_item(request, item, bar.update)
    print(written)
    return 0


def _export_dicom(item: StudyItem, folder: Path, modality: str, with_labels: bool) -> str:
    """Write a series; says what a viewer and a store need to know of it."""
    series = export_series_of(item, folder, modality=modality, with_labels=with_labels)
    return (
        f"{folder}: {len(series.files)} sections\n"
        f"  StudyInstanceUID  {series.study_uid}\n"
        f"  SeriesInstanceUID {series.series_uid}\n"
        "  in OHIF: ADDRESS/ohif/monai-label?StudyInstanceUIDs=" + series.study_uid
    )
