"""The sub-commands `predict` and `evaluate` of the command line."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lib.configs.load import hierarchy_of, load_settings
from lib.configs.places import PUBLISHED
from lib.configs.settings import Settings
from lib.evaluation.evaluate import EvaluationOptions, evaluate
from lib.evaluation.evaluation import Evaluation
from lib.evaluation.table import evaluation_table
from lib.networks.devices import choose_device
from lib.prediction.predictor import Predictor, load_predictor
from lib.volumes.atomic import StagedFiles, write_json
from lib.volumes.errors import VolumeError
from lib.volumes.import_plan import default_id
from lib.volumes.readers.opening import open_source
from lib.volumes.study import Study
from lib.volumes.writing import Sliceable, label_file, write_label

TAGS = {"segmentation": "original", "instances": "instance_predicted"}
"""Where a task's map of a study item goes: labels/<tag>/."""
CLICKED, CLICK_VOXELS = 20, 1000
WORST = 3
"""Pictures of each data set and figure."""


def add_predict_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `predict` on the command line's sub-parsers."""
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
        "--out", type=Path, help="folder for a study's maps, .nii.gz file for --image"
    )
    parser.add_argument("--task", choices=tuple(TAGS), default="segmentation")
    parser.add_argument("--level", choices=("fine", "coarse", "fallback"))
    _add_common(parser)
    parser.set_defaults(run=run_predict)
    return parser


def run_predict(args: argparse.Namespace) -> int:
    """Predict as the command line says; a fault is one line on stderr and exit status 1."""
    try:
        if (args.studies is None) == (args.image is None):
            raise ValueError("give either --studies DIR or --image FILE")
        settings, predictor = _load(args)
        for name, image, voxel_size, target in _jobs(args, settings):
            print(_predict_one(args, predictor, name, image, voxel_size, target))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def add_evaluate_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `evaluate` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure weights on annotated items",
        description="Class, object and click figures of weights on the known voxels of "
        "studies, for each item and pooled by data set, with their spread over sections and "
        "objects. Every figure of the model card comes from here.",
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
    _add_common(parser)
    parser.set_defaults(run=run_evaluate)
    return parser


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate as the command line says; a fault is one line on stderr and exit status 1."""
    try:
        found = _evaluate(args)
        if args.json:
            write_json(args.json, {"about": _about(args), **found.to_dict()})
        print(evaluation_table(found))
        if args.worst:
            pictures = found.worst.write(args.worst)
            print(f"\n{len(pictures)} worst cases in {args.worst / 'worst.md'}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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
    settings, predictor = _load(args)
    studies = [_study(root, settings) for root in args.studies]
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
    with tqdm(unit="window", disable=args.quiet or None) as bar:
        return evaluate(predictor, studies, options, lambda *step: _show(bar, *step))


def _predict_one(
    args: argparse.Namespace,
    predictor: Predictor,
    name: str,
    image: Sliceable,
    voxel_size: tuple[float, float, float],
    target: Path,
) -> str:
    with tqdm(unit="window", disable=args.quiet or None) as bar:

        def step(done: int, total: int) -> None:
            _show(bar, name, done, total)

        note = ""
        values: Any
        if args.task == "segmentation":
            values = predictor.classes(image, voxel_size, args.level, step)
        else:
            found = predictor.objects(image, voxel_size, step)
            values = found.ids
            note = f": {found.count} objects, the largest {found.largest_share:.1%} of all"
    with StagedFiles() as staged:
        write_label(staged, target, values, voxel_size)
        staged.commit()
    return f"{target}{note}"


def _jobs(
    args: argparse.Namespace, settings: Settings
) -> Iterator[tuple[str, Sliceable, tuple[float, float, float], Path]]:
    """(name, image, voxel size, target) of everything to predict."""
    if args.image is not None:
        source = open_source(args.image, "image", settings.data.spacing_unit)
        size = tuple(args.voxel_size_nm) if args.voxel_size_nm else source.info.voxel_size_nm
        if size is None:
            raise VolumeError(args.image, "no voxel size", remedy="give --voxel-size-nm X Y Z")
        stem = default_id(args.image)
        target = args.out or Path(f"{stem}_{args.task}.nii.gz")
        if not target.name.endswith(".nii.gz"):
            raise ValueError(f"--out {target}: expected a file name that ends in .nii.gz")
        yield stem, source, (size[0], size[1], size[2]), target
        return
    study = _study(args.studies, settings)
    items = [study.item(i) for i in args.items] if args.items else study.items()
    if not items:
        raise ValueError(f"study {args.studies}: no items; import an image first")
    for item in items:
        target = label_file(study.root, TAGS[args.task], item.id)
        if args.out is not None:
            target = args.out / target.name
        yield item.id, item.open_image(), item.voxel_size_nm, target


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", type=Path, default=PUBLISHED, help="default: the app's, model/neuropil.pt"
    )
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="single settings")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _load(args: argparse.Namespace) -> tuple[Settings, Predictor]:
    overrides = {}
    for pair in args.set:
        key, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set {pair}: expected KEY=VALUE")
        overrides[key] = value
    settings = load_settings(args.config, overrides)
    return settings, load_predictor(args.weights, settings, choose_device(args.device))


def _study(root: Path, settings: Settings) -> Study:
    if not root.is_dir():
        raise ValueError(f"study {root}: no such folder")
    return Study(root, hierarchy_of(settings), settings.data.spacing_unit)


def _show(bar: Any, name: str, done: int, total: int) -> None:
    bar.set_description(name, refresh=False)
    bar.total = total
    bar.update(done - bar.n)
