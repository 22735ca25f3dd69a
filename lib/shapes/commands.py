"""The `measure` command: a table of objects, their skeletons and meshes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lib.configs.options import add_settings_options, settings_from
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.shapes.chosen import ItemObjects, NoObjects, objects_of
from lib.shapes.measuring import measure
from lib.shapes.meshes import meshes_of, name_meshes, write_mesh
from lib.shapes.skeletons import skeletons_of, write_swc
from lib.shapes.tables import SUFFIXES, write_table
from lib.volumes.options import add_study_option, existing_study
from lib.volumes.study import StudyItem


def add_measure_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `measure` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "measure",
        help="a table of objects; their skeletons and meshes",
        description="Measure the objects of items: volume, surface, place, contacts, the cell "
        "that an organelle lies in; of axons diameter, myelin and g-ratio. docs/measuring.md "
        "says how each figure is defined.",
    )
    parser.add_argument("items", nargs="*", metavar="ITEM", help="default: all items")
    add_study_option(parser)
    parser.add_argument(
        "--objects", choices=("current", "predicted", "instance"), default="current",
        help="the current objects (the machine's, as people corrected them), the machine's own, "
        "or those of the annotated label",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help="objects by number or name, or a class (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, action="append", default=[], metavar="FILE",
        help="table of all items, .csv or .parquet; may be given twice (default objects.csv)",
    )  # fmt: skip
    parser.add_argument("--skeletons", type=Path, metavar="DIR", help="write SWC files here")
    parser.add_argument("--meshes", type=Path, metavar="DIR", help="write meshes here")
    parser.add_argument(
        "--mesh-format", choices=("ply", "precomputed"), default="ply",
        help="PLY files, or a mesh folder for Neuroglancer",
    )  # fmt: skip
    add_settings_options(parser)
    return parser


def run_measure(args: argparse.Namespace) -> int:
    """Measure as the command line says; items without such objects are named and left out.

    Returns:
        0.

    Raises:
        ValueError: no item has such objects, or a table of another kind.
    """
    study = existing_study(args.studies, settings_from(args))
    targets = args.out or [Path("objects.csv")]
    if bad := [path for path in targets if path.suffix not in SUFFIXES]:
        raise ValueError(f"--out {bad[0]}: expected a name that ends in {' or '.join(SUFFIXES)}")
    items = [study.item(i) for i in args.items] or study.items()
    rows = []
    lacking: list[NoObjects] = []
    chosen = _chosen(args, items)
    without = [name for name, ids in chosen.items() if not ids]
    for item in items:
        if item.id in without:
            continue
        try:
            found = objects_of(item, args.objects)
        except NoObjects as error:
            lacking.append(error)
            continue
        only = chosen.get(item.id, [])
        with tqdm(desc=f"measure {item.id}", unit="axon", disable=None) as bar:

            def progress(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            rows += [
                {"item": item.id, **row} for row in measure(found, study.hierarchy, only, progress)
            ]
        _write_shapes(args, item, found, only)
    if lacking and len(lacking) == len(items):
        raise lacking[0]
    for one in lacking:
        print(f"left out: {one}", file=sys.stderr)
    for name in without:
        print(f"left out: item {name} has none of --only {' '.join(args.only)}", file=sys.stderr)
    for path in targets:
        write_table(path, rows)
        print(f"{path}: {len(rows)} objects of {len(items) - len(lacking) - len(without)} items")
    return 0


def _chosen(args: argparse.Namespace, items: Sequence[StudyItem]) -> dict[str, list[int]]:
    """Item -> ids of its objects that --only means, before anything is written; {} without it.

    Raises:
        ValueError: a word that means no object of any item.
    """
    chosen: dict[str, list[int]] = {}
    absent = set(args.only)
    for item in items if args.only else ():
        try:
            found = objects_of(item, args.objects)
        except NoObjects:
            continue
        each = {word: ids_named(found, word, item.study.hierarchy) for word in args.only}
        absent -= {word for word, ids in each.items() if ids}
        chosen[item.id] = sorted(set().union(*each.values()))
    if absent and chosen:
        where = f"item {items[0].id}" if len(items) == 1 else f"any of {len(items)} items"
        raise ValueError(f"--only {min(absent)}: no such object in {where}")
    return chosen


def ids_named(objects: ItemObjects, word: str, hierarchy: LabelHierarchy) -> set[int]:
    """Ids that a number, a name or a class means; none where the item has no such object."""
    present = set(np.unique(objects.ids).tolist()) - {0}
    key = normalize_name(word)
    mine = {int(key)} if key.isdecimal() else set()
    mine |= {i for i, name in objects.names.items() if normalize_name(name) == key}
    mine |= {
        i for i, c in objects.classes.items() if normalize_name(hierarchy.class_names[c]) == key
    }
    return mine & present


def _write_shapes(
    args: argparse.Namespace, item: StudyItem, objects: ItemObjects, only: Sequence[int]
) -> None:
    size, offset = objects.voxel_size_nm, objects.offset_nm
    wanted = list(only) or [int(i) for i in np.unique(objects.ids) if i]
    if args.skeletons is not None:
        lines = skeletons_of(objects.ids, size, wanted)
        for object_id, line in lines.items():
            write_swc(args.skeletons / item.id / f"{object_id}.swc", line, offset)
        print(f"{args.skeletons / item.id}: {len(lines)} skeletons")
    if args.meshes is not None:
        folder = args.meshes / item.id if args.mesh_format == "ply" else args.meshes
        count = 0
        for object_id, mesh in meshes_of(objects.ids, size, wanted):
            write_mesh(folder, object_id, mesh, offset, args.mesh_format)
            count += 1
        name_meshes(folder)
        print(f"{folder}: {count} meshes")
