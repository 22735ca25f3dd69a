"""Learning curves of automatic only, proofread only and combined on FIB-25, at equal budget.

    python benchmarks/learning_curves.py --studies DIR [--steps 300] [--out runs/curves]

DIR holds the imported items `fib25-train` and `fib25-val` (benchmarks/import_shared_data.py).
Every run draws the same patches in the same order and takes the same number of optimiser
steps. Runs that were stopped go on. Writes curves.png and curves.md into the output folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.configs.load import load_settings
from lib.configs.settings import Settings
from lib.engine.run import RunOptions, train

MODES = {
    "automatic": ["automatic"],
    "proofread": ["proofread"],
    "combined": ["automatic", "proofread"],
}
FIGURES = {
    "val/are": "adapted Rand error (lower is better)",
    "val/prompt_iou": "IoU of the clicked object",
    "val/prompt_gain": "gain by prompts",
    "val/loss_ins": "instance loss",
}
ITEMS = ("fib25-train", "fib25-val")
Curves = dict[str, dict[str, list[tuple[int, float]]]]


def settings_of(modes: Sequence[str], steps: int, seed: int, patch: Sequence[int]) -> Settings:
    """The same run but for its modes."""
    every = max(1, steps // 6)
    return load_settings(
        None,
        {
            "loss.weight_near": 3.0,
            "loss.weight_prompt": 0.5,
            "training.vary_points": True,
            "training.training_modes": list(modes),
            "training.fractionary_prompts": True,
            "training.learning_rate": 2e-3,
            "training.ema_decay": 0.98,
            "training.max_epochs": -(-steps // every),
            "training.steps_per_epoch": every,
            "training.val_interval": 1,
            "training.image_interval": 1000,
            "training.workers": 1,
            "training.seed": seed,
            "data.patch_size": list(patch),
            "server.follow_links": True,
        },
    )


def only_items(studies: Path, folder: Path) -> Path:
    """A study that links to the two FIB-25 items."""
    for path in (p for item in ITEMS for p in studies.rglob(f"{item}.n*")):
        link = folder / path.relative_to(studies)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder


def read_curves(runs: Mapping[str, Path]) -> Curves:
    """Run -> figure -> (step, value)."""
    curves: Curves = {}
    for name, folder in runs.items():
        events = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0}).Reload()
        known = events.Tags()["scalars"]
        curves[name] = {
            key: [(e.step, e.value) for e in events.Scalars(key)] for key in FIGURES if key in known
        }
    return curves


def draw(curves: Curves, target: Path) -> None:
    """One panel for each figure."""
    figure, panels = plt.subplots(1, len(FIGURES), figsize=(4 * len(FIGURES), 3.2))
    for panel, (key, title) in zip(panels, FIGURES.items(), strict=True):
        for name, found in curves.items():
            points = found.get(key, [])
            panel.plot([s for s, _ in points], [v for _, v in points], marker="o", label=name)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("optimiser steps")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def table(curves: Curves, steps: int) -> str:
    """The last values as Markdown."""
    lines = [f"| {steps} steps | " + " | ".join(FIGURES.values()) + " |"]
    lines.append("|---" * (len(FIGURES) + 1) + "|")
    for name, found in curves.items():
        last = [f"{found[key][-1][1]:.3f}" if found.get(key) else "" for key in FIGURES]
        lines.append(f"| {name} | " + " | ".join(last) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Train three times, draw, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 96, 24))
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    runs = {name: args.out / name for name in MODES}
    with tempfile.TemporaryDirectory() as folder:
        study = only_items(args.studies, Path(folder))
        for name, modes in MODES.items():
            options = RunOptions(
                studies=(study,),
                out_dir=runs[name],
                max_steps=args.steps,
                validation_limit=args.places,
                note=lambda sentence, name=name: print(f"{name}: {sentence}", flush=True),
            )
            train(settings_of(modes, args.steps, args.seed, args.patch), options)
    curves = read_curves(runs)
    draw(curves, args.out / "curves.png")
    text = table(curves, args.steps)
    (args.out / "curves.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
