"""Options that many commands share: settings, device, quietness."""

from __future__ import annotations

import argparse
from pathlib import Path

from lib.configs.load import load_settings
from lib.configs.settings import Settings


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """--config and --set; read them with `settings_from`."""
    parser.add_argument(
        "--config", "--conf", type=Path, metavar="FILE", help="YAML file with settings"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE",
        help="single settings, for instance training.max_epochs=20",
    )  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """--device (for `choose_device`) and --quiet (no progress bar)."""
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that --config and --set name.

    Raises:
        ValueError: no such file, an unknown key, a bad value, or no KEY=VALUE.
    """
    overrides = {}
    for pair in args.set:
        key, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set {pair}: expected KEY=VALUE")
        overrides[key] = value
    return load_settings(args.config, overrides)
