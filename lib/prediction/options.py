"""What the commands that run weights share: the options, the predictor, the progress bar."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from lib.configs.options import add_run_options, add_settings_options, settings_from
from lib.configs.places import PUBLISHED
from lib.configs.settings import Settings
from lib.networks.devices import choose_device
from lib.prediction.predictor import Predictor, load_predictor

Show = Callable[[str, int, int], None]
"""Called with (what is at work, steps done, steps in all)."""


def add_predictor_options(parser: argparse.ArgumentParser) -> None:
    """--weights, and the options of settings and runs."""
    parser.add_argument(
        "--weights", type=Path, default=PUBLISHED, metavar="FILE",
        help="default: the app's, model/neuropil.pt",
    )  # fmt: skip
    add_settings_options(parser)
    add_run_options(parser)


def predictor_from(args: argparse.Namespace) -> tuple[Settings, Predictor]:
    """The settings and the weights that the options name.

    Raises:
        ValueError: bad settings, no such weights, or no such device.
    """
    settings = settings_from(args)
    return settings, load_predictor(args.weights, settings, choose_device(args.device))


@contextmanager
def window_bar(args: argparse.Namespace) -> Iterator[Show]:
    """A progress bar of windows; silent with --quiet and where nobody watches."""
    with tqdm(unit="window", disable=args.quiet or None) as bar:

        def show(name: str, done: int, total: int) -> None:
            bar.set_description(name, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        yield show
