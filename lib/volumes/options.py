"""What the commands that read or write a study share."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.volumes.study import Study


def add_study_option(parser: argparse.ArgumentParser) -> None:
    """--studies: the one folder of a study."""
    parser.add_argument(
        "--studies", type=Path, required=True, metavar="DIR", help="the study's folder"
    )


def open_study(root: Path, settings: Settings) -> Study:
    """The study in a folder, with the settings' hierarchy; the folder may yet be made."""
    return study_of(root, hierarchy_of(settings), settings)


def study_of(root: Path | str, hierarchy: LabelHierarchy, settings: Settings) -> Study:
    """The study in a folder, read as the settings say."""
    data = settings.data
    return Study(
        root, hierarchy, data.spacing_unit, settings.server.follow_links, data.bright_membranes
    )


def existing_study(root: Path, settings: Settings) -> Study:
    """The study in a folder.

    Raises:
        ValueError: there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"study {root}: no such folder; import an image into it first")
    return open_study(root, settings)


def voxel_bar(total: int, text: str) -> tqdm[None]:
    """A progress bar that counts voxels; silent where nobody watches."""
    return tqdm(total=total, desc=text, unit="voxel", unit_scale=True, disable=None)
