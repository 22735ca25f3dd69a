"""One change at a time, on equal budget: what each choice of the recipe is worth.

    python benchmarks/variants.py --studies DIR [DIR ...] [--steps 300] [--only base ratio-1]
        [--groups vnc fib25]

Every variant takes the same number of optimiser steps on the same patches in the same order,
from scratch, and is scored on the same validation places. Finished variants are not run again.
Writes variants.md into the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.heavy_heads import heavy_heads
from benchmarks.training_variants import (
    boundary_erosion,
    deep_supervision,
    unbalanced_classes,
)
from lib.configs.load import load_settings
from lib.engine.run import RunOptions, train

RECIPE = Path(__file__).parent / "recipes" / "shipped.yaml"

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "ratio-1": {"model.section_ratio": 1},
    "ratio-2": {"model.section_ratio": 2},
    "width-8": {"model.feature_size": 8},
    "width-24": {"model.feature_size": 24},
    "embedding-24": {"model.embedding_size": 24},
    "no-fractionary-prompts": {"training.fractionary_prompts": False},
    "raw-known": {"loss.raw_region": "known"},
    "no-geometry": {"loss.weight_geometry": 0.0},
    "no-near": {"loss.weight_near": 0.0},
    "no-mask-head": {"loss.weight_prompt": 0.0},
    "semantic-1": {"loss.weight_semantic": 1.0},
    "instance-0.3": {"loss.weight_instance": 0.3, "loss.weight_geometry": 0.3},
    "accumulate-2": {"training.accumulate": 2},
    "no-ema": {"training.ema_decay": 0.0},
    "no-augmentation": {"data.augment": False},
    "accumulate-4": {"training.accumulate": 4},
    "error-rounds-3": {"training.error_rounds": 3},
    "appearance-0.4": {"data.appearance": 0.4},
    "constant-rate": {"training.schedule": "constant"},
    "heavy-heads": {},
    "deep-supervision": {},
    "boundary-erosion": {},
    "unbalanced-classes": {},
}
CODE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "heavy-heads": heavy_heads,
    "deep-supervision": deep_supervision,
    "boundary-erosion": boundary_erosion,
    "unbalanced-classes": unbalanced_classes,
}
"""Variants that no setting makes (heavy_heads.py, training_variants.py)."""
COLUMNS = {
    "score": "score",
    "val/mean_iou": "mean IoU",
    "val/iou/mitochondria": "mitochondria",
    "val/iou/myelin": "myelin",
    "val/are": "ARE",
    "val/prompt_iou": "prompted",
    "val/prompt_gain": "gain",
}


def run_variant(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one variant, or read what it gave.

    Returns:
        `RunResult` as plain values, with "seconds" of the run.
    """
    folder = args.out / name
    found = folder / "result.json"
    if not found.exists():
        change = VARIANTS[name]
        # An optimiser step of several batches is paid for in steps.
        steps = args.steps // int(change.get("training.accumulate", 1))
        every = max(1, steps // 3)
        fixed = {
            "training.warmup_steps": max(1, steps // 20),
            "training.steps_per_epoch": every,
            "training.max_epochs": -(-steps // every),
            "training.val_interval": 1000,
            "training.image_interval": 1000,
            "training.ema_decay": 0.98,
            "data.patch_size": list(args.patch),
            "training.seed": args.seed,
            "server.follow_links": True,
        }
        if args.groups:
            fixed["data.group_weights"] = {}
        options = RunOptions(
            studies=tuple(args.studies),
            out_dir=folder,
            max_steps=steps,
            validation_limit=args.places,
            note=lambda sentence: print(f"{name}: {sentence}", flush=True),
        )
        with CODE.get(name, nullcontext)():
            train(load_settings(args.config, fixed | change), options)
    result: dict[str, Any] = json.loads(found.read_text())
    return result


def only_groups(studies: Sequence[Path], groups: Sequence[str], folder: Path) -> Path:
    """A study that links to the items of some groups (names up to the first "-")."""
    for root in studies:
        for path in root.rglob("*"):
            if path.is_file() and path.name.partition("-")[0] in groups:
                link = folder / path.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
    return folder


def table(results: dict[str, dict[str, Any]], steps: int) -> str:
    """A row a variant."""
    lines = [f"| {steps} patches | changed | " + " | ".join(COLUMNS.values()) + " | seconds |"]
    lines.append("|---|---|" + "--:|" * (len(COLUMNS) + 1))
    for name, result in results.items():
        figures = result["figures"] | {"score": result["best"]}
        cells = ["" if figures.get(key) is None else f"{figures[key]:.3f}" for key in COLUMNS]
        changed = ", ".join(f"`{k}: {v}`" for k, v in VARIANTS[name].items())
        lines.append(
            f"| {name} | {changed} | " + " | ".join(cells) + f" | {result['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the variants and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=Path, default=RECIPE)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 16))
    parser.add_argument("--places", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--groups", nargs="+", help="only items of these groups")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    with TemporaryDirectory() as folder:
        if args.groups:
            args.studies = [only_groups(args.studies, args.groups, Path(folder))]
        for name in args.only:
            results[name] = run_variant(name, args)
            text = table(results, args.steps)
            (args.out / "variants.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
