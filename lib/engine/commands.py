"""The `train` command: the same training as the server's, with a progress bar."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ignite.distributed as idist
import torch
from ignite.distributed.launcher import Parallel
from tqdm import tqdm

from lib.configs.options import add_run_options, add_settings_options, settings_from
from lib.configs.places import FIRST_RUN, PUBLISHED
from lib.configs.settings import Settings
from lib.engine.optimise import NotFiniteError
from lib.engine.publish import restore_version
from lib.engine.recipe import origins_of, with_recipe_of
from lib.engine.run import RunOptions, RunResult, train
from lib.networks.weights import load_weights
from lib.volumes.options import existing_study


def add_train_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `train` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train the combined mode on studies",
        description="Train on the annotated items of studies. A run starts from the published "
        "weights (--weights names others, --from-scratch none); started again with the same "
        "--out, one that was stopped or killed goes on from its last checkpoint.",
    )
    parser.add_argument("--studies", nargs="+", type=Path, metavar="DIR", help="study folders")
    parser.add_argument(
        "--out",
        type=Path,
        default=FIRST_RUN,
        help="folder of the run (default: the app's model/combined/train_01)",
    )
    add_settings_options(parser)
    parser.add_argument(
        "--weights",
        type=Path,
        help="start from these weights (default: those that --publish names, or else the app's, "
        "model/neuropil.pt; random ones where there are none)",
    )
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--no-resume", action="store_true", help="ignore a checkpoint in --out")
    parser.add_argument(
        "--publish",
        type=Path,
        nargs="?",
        const=PUBLISHED,
        metavar="FILE",
        help="replace this weights file (default: the app's, model/neuropil.pt) when the new ones "
        "are better on the same validation places",
    )
    parser.add_argument("--restore", action="store_true", help="only restore the weights before")
    parser.add_argument("--max-steps", type=int, help="end after so many optimiser steps")
    parser.add_argument(
        "--minutes", type=float, help="stop so long after the start; the same command goes on"
    )
    parser.add_argument("--validation-places", type=int, default=24)
    add_run_options(parser)
    return parser


def run_train(args: argparse.Namespace) -> int:
    """Run `train`; under `torchrun main.py train ...`, one process of it.

    Returns:
        0, done or stopped.

    Raises:
        ValueError: what a user can mend; also a loss that stays NaN or infinite.
    """
    if args.restore:
        target = args.publish or PUBLISHED
        print(f"{target} is now {restore_version(target)}")
        return 0
    settings = settings_from(args)
    if not args.studies:
        raise ValueError("--studies: give at least one study folder")
    for root in args.studies:  # before anything is started for it
        existing_study(root, settings)
    try:
        with Parallel(backend=_backend()) as parallel:
            parallel.run(_process, settings, args)
    except NotFiniteError as error:
        raise ValueError(str(error)) from error
    return 0


def _process(_: int, settings: Settings, args: argparse.Namespace) -> RunResult:
    """What each process does."""
    leads = idist.get_rank() == 0
    stop = _StopSignal(args.minutes)
    bar = None if args.quiet or not leads else tqdm(unit="step", dynamic_ncols=True)

    def progress(step: int, total: int, figures: dict[str, float]) -> None:
        if bar is not None:
            if not bar.n:
                bar.initial = step - 1  # of a resumed run: the rate counts this session's steps
            bar.total, bar.n = total, step
            bar.set_postfix(
                loss=f"{figures['train/loss']:.3f}",
                per_s=f"{figures['train/samples_per_second']:.2f}",
                wait=f"{figures['train/data_wait']:.0%}",
            )

    def note(sentence: str) -> None:
        if leads:
            tqdm.write(sentence, file=sys.stderr)

    start = start_of(args)
    origins = origins_of(settings)
    if start is not None:
        settings, origins = with_recipe_of(settings, load_weights(start))
    options = RunOptions(
        studies=tuple(args.studies),
        out_dir=args.out,
        published=args.publish,
        start=start,
        resume=not args.no_resume,
        max_steps=args.max_steps,
        device=args.device,
        validation_limit=args.validation_places,
        stop=stop,
        progress=progress,
        note=note,
        origins=origins,
    )
    result = train(settings, options)
    if bar is not None:
        bar.close()
    best = "no validation" if result.best is None else f"best score {result.best:.4f}"
    note(
        f"{'stopped' if result.stopped else 'finished'} at step {result.steps}; {best}; {args.out}"
    )
    return result


def start_of(args: argparse.Namespace) -> Path | None:
    """The weights that a run starts from; None: random ones."""
    if args.from_scratch:
        return None
    if args.weights is not None:
        return Path(args.weights)
    published = Path(args.publish or PUBLISHED)
    return published if published.exists() else None


class _StopSignal:
    """Turns SIGINT and SIGTERM into a stop after the step; a second one ends at once.

    Args:
        minutes: after which it stops by itself; None: never.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.asked = False
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked or time.monotonic() >= self.end

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _backend() -> str | None:
    """The process group's backend under torchrun; None for a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    return "nccl" if torch.cuda.is_available() else "gloo"
