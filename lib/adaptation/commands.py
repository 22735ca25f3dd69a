"""The `adapt` command: refit a study's heads to its labels, show what is learned, or reset it."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib.adaptation.learner import StudyLearner
from lib.adaptation.network import Network
from lib.adaptation.rehearsal import reservoir_for
from lib.configs.load import hierarchy_of
from lib.configs.options import add_run_options, add_settings_options, settings_from
from lib.configs.places import PUBLISHED
from lib.networks.devices import choose_device
from lib.networks.digests import digest_of
from lib.networks.weights import load_network
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.joining import joining_of
from lib.prediction.learned import load_heads, reset_heads
from lib.volumes.options import existing_study
from lib.volumes.study import StudyItem


def add_adapt_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `adapt` to a command line."""
    parser = subparsers.add_parser(
        "adapt",
        help="refit a study's heads to its labels",
        description="What the server does after each submission: the heads are refitted to all "
        "that is annotated, judged on parts held back, and kept in labels/heads.pt of the study.",
    )
    parser.add_argument("--studies", type=Path, required=True, metavar="DIR", help="study folder")
    parser.add_argument("--weights", type=Path, default=PUBLISHED, help="published weights")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--reset", action="store_true", help="forget what was learned")
    what.add_argument("--show", action="store_true", help="only tell what was learned, and when")
    add_settings_options(parser)
    add_run_options(parser)


def run_adapt(args: argparse.Namespace) -> int:
    """Run `adapt`.

    Raises:
        ValueError: no weights, or damaged heads (`--reset` removes them).
    """
    if args.reset:
        print("forgotten" if reset_heads(args.studies) else "nothing was learned")
        return 0
    if args.show:
        stored = load_heads(args.studies)
        for entry in () if stored is None else (*stored.history, stored.learned):
            print(f"{entry.time}  {entry.sentence}")
        return 0
    settings = settings_from(args)
    net, trained, hierarchy, _ = load_network(args.weights, choose_device(args.device))
    digest = digest_of(args.weights)
    if hierarchy.to_dict() != hierarchy_of(settings).to_dict():
        raise ValueError(
            f"{args.weights}: found other classes than labels.hierarchy says; give the hierarchy "
            "that the weights were trained with (--set labels.hierarchy=FILE)"
        )
    network = Network(
        net, hierarchy, digest, trained.model.finest_nm, trained.model.most_split,
        settings.inference, lambda: reservoir_for(args.weights, digest, net, hierarchy),
        joining_of(net),
    )  # fmt: skip
    study = existing_study(args.studies, settings)
    cache = FeatureCache(settings.inference.cache_bytes)

    def shelf(item: StudyItem) -> Shelf:
        return Shelf(cache, digest, str(item.image_path))

    stored = StudyLearner(study, settings.adaptation, shelf).learn(network)
    print(f"{stored.learned.sentence} ({stored.learned.seconds:.1f} s)")
    return 0
