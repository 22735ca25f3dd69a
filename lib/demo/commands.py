"""The command `demo`: a study of synthetic neuropil."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lib.configs.load import load_settings
from lib.demo.items import annotation_kinds, write_synthetic_item
from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.partial import Annotation
from lib.volumes.study import Study


def add_demo_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `demo` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="make a study of synthetic neuropil",
        description="Make study items of procedural neuropil with all twelve classes: fully "
        "annotated ones and, with --partial, ones that are annotated in boxes, by group only "
        "or not at all.",
    )
    parser.add_argument("--studies", type=Path, required=True, metavar="DIR")
    parser.add_argument("--items", type=int, default=4, metavar="N", help="default 4")
    parser.add_argument(
        "--size", type=int, nargs=3, default=(192, 192, 48), metavar=("X", "Y", "Z"),
        help="voxels, default 192 192 48",
    )  # fmt: skip
    parser.add_argument(
        "--voxel-size-nm", type=float, nargs=3, default=(8.0, 8.0, 40.0), metavar=("X", "Y", "Z"),
        help="default 8 8 40",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first item, default 0")
    parser.add_argument(
        "--partial", type=float, default=0.5, metavar="SHARE",
        help="share of items that are partly or not annotated, default 0.5",
    )  # fmt: skip
    parser.add_argument(
        "--session",
        action="store_true",
        help="instead, act out a whole annotation session in DIR: predict, click, submit partly, "
        "train, ask for the next region, and show how the figures rise (minutes)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of --session, default 3")
    return parser


def run_demo(args: argparse.Namespace) -> int:
    """Make the study that the arguments describe; items that exist are kept.

    Returns:
        0.

    Raises:
        ValueError: arguments out of range.
    """
    if args.session:
        return run_session(args)
    if args.items < 1:
        raise ValueError(f"--items {args.items}: expected 1 or more")
    if not 0.0 <= args.partial <= 1.0:
        raise ValueError(f"--partial {args.partial}: expected a share between 0 and 1")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: expected 0 or more")
    hierarchy = load_hierarchy()
    study = Study(args.studies, hierarchy)
    kinds = annotation_kinds(args.items, args.partial)
    lines = []
    for i, kind in enumerate(tqdm(kinds, desc="demo", unit="item")):
        item_id = f"synthetic-{args.seed + i:03d}"
        if study.has_item(item_id):
            lines.append(f"{item_id}: exists, kept")
            continue
        write_synthetic_item(
            study, item_id, tuple(args.size), tuple(args.voxel_size_nm), args.seed + i, kind
        )
        lines.append(f"{item_id}: {_WORDS[kind]}")
    print("\n".join([*lines, f"{len(kinds)} items in {args.studies}"]))
    return 0


def run_session(args: argparse.Namespace) -> int:
    """Act out an annotation session and print a line a round.

    Raises:
        ValueError: the folder is not empty, or arguments out of range.
    """
    # Only here: a session trains, and what trains takes longer to import than items to make.
    from lib.demo.session import SESSION_SETTINGS, SessionPlan, simulate_session

    if args.rounds < 1:
        raise ValueError(f"--rounds {args.rounds}: expected 1 or more")
    plan = SessionPlan(args.studies, rounds=args.rounds, seed=args.seed)
    figures = simulate_session(plan, load_settings(SESSION_SETTINGS), print)
    first, last = figures[0].mean_iou, figures[-1].mean_iou
    print(f"held-out mean IoU {first:.3f} after the first round, {last:.3f} after the last")
    return 0


_WORDS: dict[Annotation, str] = {
    "full": "fully annotated",
    "boxes": "annotated in boxes",
    "groups": "annotated by group",
    "none": "not annotated",
}
