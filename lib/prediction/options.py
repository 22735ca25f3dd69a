"""What the commands that run weights share: the options, the predictor, the progress bar."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from lib.configs.options import add_run_options, add_settings_options, settings_from
from lib.configs.places import PUBLISHED
from lib.configs.settings import Settings
from lib.networks.devices import choose_device
from lib.networks.digests import digest_of
from lib.prediction.learned import Stored, load_heads
from lib.prediction.predictor import Predictor, load_predictor
from lib.volumes.options import existing_study

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


def add_learned_option(parser: argparse.ArgumentParser) -> None:
    """--learned, of commands that predict an image of no study."""
    parser.add_argument(
        "--learned", type=Path, metavar="DIR",
        help="a study; what it learned is used for --image (a study's own items always use it)",
    )  # fmt: skip


def learned_from(args: argparse.Namespace, settings: Settings) -> Stored | None:
    """What the study of --studies or --learned has learned, as its server uses it; says so.

    Returns:
        None where no study is named, learning is switched off, nothing that was learned is in
        use, or it sits on other weights.

    Raises:
        ValueError: --learned beside --studies, no such study, or damaged heads.
    """
    if args.learned is not None and args.studies is not None:
        raise ValueError("--learned is for --image: items use what their own study learned")
    root = args.studies or args.learned
    if root is None or not settings.adaptation.enabled:
        return None
    stored = load_heads(existing_study(root, settings).root)
    if stored is not None and stored.sits_on(digest_of(args.weights)):
        if not args.quiet:
            print(f"{root}: {stored.learned.sentence}", file=sys.stderr)
        return stored
    if stored is not None and stored.learned.used:
        print(
            f"warning: {root}: what was learned there sits on other weights and is not used; "
            f"learn it anew on these: python main.py adapt --studies {root}",
            file=sys.stderr,
        )
    elif args.learned is not None:
        print(f"warning: {root}: nothing that was learned there is in use", file=sys.stderr)
    return None


@contextmanager
def window_bar(args: argparse.Namespace) -> Iterator[Show]:
    """A progress bar of windows; silent with --quiet and where nobody watches."""
    with tqdm(unit="window", disable=args.quiet or None) as bar:

        def show(name: str, done: int, total: int) -> None:
            bar.set_description(name, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        yield show
