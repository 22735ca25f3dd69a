"""The `evaluate` command: every figure of the model card comes from here."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

from lib.evaluation.evaluate import EvaluationOptions, evaluate
from lib.evaluation.figures import Evaluation
from lib.evaluation.table import evaluation_table
from lib.prediction.options import add_predictor_options, predictor_from, window_bar
from lib.volumes.atomic import write_json
from lib.volumes.options import existing_study

CLICKED, CLICK_VOXELS = 20, 1000
WORST = 3
"""Pictures of each data set and figure."""


def add_evaluate_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `evaluate` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure weights on annotated items",
        description="Class, object and click figures of weights on the known voxels of "
        "studies, for each item and pooled by data set, with their spread over sections and "
        "objects: of the weights as they are, without what studies learned from submissions, on "
        "one split's voxels. Every figure of the model card comes from here.",
    )
    parser.add_argument("--studies", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--items", nargs="+", default=[], metavar="ID", help="default: all items")
    parser.add_argument("--split", choices=("val", "train", "all"), default="val")
    parser.add_argument(
        "--min-voxels", type=int, default=0, help="smallest object that matching looks at"
    )
    parser.add_argument(
        "--clicks",
        type=int,
        default=CLICKED,
        metavar="N",
        help=f"click sessions on N objects an item (default {CLICKED}; 0: none)",
    )
    parser.add_argument(
        "--click-voxels",
        type=int,
        default=CLICK_VOXELS,
        metavar="N",
        help=f"smallest object that is clicked on (default {CLICK_VOXELS})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument(
        "--worst", type=Path, metavar="DIR", help="write the worst cases here, as pictures"
    )
    add_predictor_options(parser)
    return parser


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate as the command line says.

    Returns:
        0.

    Raises:
        ValueError: nothing to measure, or weights of other classes.
    """
    found = _evaluate(args)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if args.json:
        write_json(args.json, {"about": _about(args), **found.to_dict()})
    weights = args.weights or "the app's weights"
    print(f"Known voxels of split {args.split}; {weights}, without what studies have learned.\n")
    print(evaluation_table(found))
    if args.worst:
        pictures = found.worst.write(args.worst)
        print(f"\n{len(pictures)} worst cases in {args.worst / 'worst.md'}")
    return 0


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """What was measured, for whoever reads the figures later."""
    weights = args.weights.read_bytes()
    return {
        "weights": {"file": args.weights.name, "sha256": hashlib.sha256(weights).hexdigest()},
        "split": args.split,
        "min_voxels": args.min_voxels,
        "clicks": args.clicks,
        "click_voxels": args.click_voxels,
        "set": args.set,
    }


def _evaluate(args: argparse.Namespace) -> Evaluation:
    settings, predictor = predictor_from(args)
    studies = [existing_study(root, settings) for root in args.studies]
    for study in studies:
        if study.hierarchy.class_names != predictor.hierarchy.class_names:
            raise ValueError(
                f"weights {args.weights} know the classes "
                f"{', '.join(predictor.hierarchy.class_names)}; the configuration has "
                f"{', '.join(study.hierarchy.class_names)}"
            )
    options = EvaluationOptions(
        split=args.split,
        val_fraction=settings.training.val_fraction,
        min_voxels=args.min_voxels,
        clicks=args.clicks,
        click_voxels=args.click_voxels,
        worst=WORST if args.worst else 0,
        items=tuple(args.items),
    )
    with window_bar(args) as show:
        return evaluate(predictor, studies, options, show)
