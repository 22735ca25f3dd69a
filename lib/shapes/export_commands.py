"""The `export` command: labels and objects in the frame of their source, or DICOM.

It lies in this room because it knows all ways out and what current objects are; the writing
itself is done by lib/volumes and lib/dicom.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from lib.configs.options import add_settings_options, settings_from
from lib.dicom.labels import export_item as export_series_of
from lib.labels.value_maps import ENCODINGS
from lib.shapes.chosen import NoObjects, lazy_objects
from lib.volumes.export_values import DATASETS, OBJECTS, TAGS, ExportRequest
from lib.volumes.exporting import export_item
from lib.volumes.options import add_study_option, existing_study, voxel_bar
from lib.volumes.study import StudyItem


def add_export_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `export` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="write an item's labels in the frame of its source volume, or the item as DICOM",
        description="Write annotated labels, predictions or current objects to HDF5, TIFF, Zarr, "
        "OME-Zarr, N5 or Precomputed, at the item's place in its source. Items of one volume can "
        "go into one target, one by one or all at once. "
        "With --dicom, write image and labels as a DICOM series for OHIF and DICOM stores.",
    )
    parser.add_argument("item", help="item id")
    parser.add_argument(
        "target", metavar="TARGET",
        help="FILE.h5[:DATASET], FILE.tif, DIR.zarr, DIR.ome.zarr, DIR.n5 or precomputed://DIR; a "
        "new DIR for DICOM",
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
    parser.add_argument(
        "--label", choices=tuple(DATASETS), default="final",
        help="annotated classes (final) or ids (instance); what the machine said of them "
        "(classes, predicted); objects as people corrected them (current)",
    )  # fmt: skip
    parser.add_argument(
        "--whole-source", action="store_true",
        help="all items of ITEM's source that have the label; ids of different items are kept "
        "apart by an offset",
    )  # fmt: skip
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="canonical", help="of class labels"
    )
    parser.add_argument(
        "--crop-only", action="store_true",
        help="write the item's voxels alone, not the whole frame of its source",
    )  # fmt: skip
    parser.add_argument(
        "--unknown", type=int, metavar="VALUE",
        help="value of voxels of which nothing is known; by default 0 for ids, which viewers show "
        "as nothing (4294967295 keeps them apart from 'no object'), and for classes what the "
        "encoding says",
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
    offset, done = 0, 0
    for one in _of_source(item, args.label) if args.whole_source else [item]:
        request = ExportRequest(
            args.target, args.label, args.encoding, args.crop_only,
            args.replace and not done, offset, args.unknown,
        )  # fmt: skip
        values = lazy_objects(one, "current") if args.label == "current" else None
        with voxel_bar(math.prod(one.shape), f"export {one.id}") as bar:
            written = export_item(request, one, bar.update, values)
        print(written.text + (f", ids from {offset + 1}" if offset else ""))
        offset, done = written.highest if args.label in OBJECTS else 0, done + 1
    return 0


def _of_source(item: StudyItem, label: str) -> list[StudyItem]:
    """The items of the same source volume that have a label, the named one among them."""

    def source(one: StudyItem) -> tuple[Any, Any]:
        return one.record.source.get("path"), one.record.source.get("dataset")

    found = [one for one in item.study.items() if source(one) == source(item)]
    if "path" not in item.record.source:
        return [item]
    return [one for one in found if one.id == item.id or has_label(one, label)]


def has_label(item: StudyItem, label: str) -> bool:
    """Whether an item has what `export --label` names."""
    if label != "current":
        return item.has_label(TAGS[label])  # type: ignore[index]
    try:
        lazy_objects(item, "current")
    except NoObjects:
        return False
    return True


def _export_dicom(item: StudyItem, folder: Path, modality: str, with_labels: bool) -> str:
    """Write a series; says what a viewer and a store need to know of it."""
    series = export_series_of(item, folder, modality=modality, with_labels=with_labels)
    return (
        f"{folder}: {len(series.files)} sections\n"
        f"  StudyInstanceUID  {series.study_uid}\n"
        f"  SeriesInstanceUID {series.series_uid}\n"
        "  in OHIF: ADDRESS/ohif/monai-label?StudyInstanceUIDs=" + series.study_uid
    )
