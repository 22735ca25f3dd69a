"""What a training run has to beat, and what it must not forget: for the `combined` trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.adaptation.item_rows import CompactSets, item_rows, learned_labels
from lib.adaptation.learner import fit_and_judge, refit_options
from lib.adaptation.network import Network
from lib.adaptation.rehearsal import MADE, reservoir_for
from lib.adaptation.rows import Rows
from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.data.items import DataItem
from lib.engine.options import load_items
from lib.labels.hierarchy import load_hierarchy
from lib.networks.digests import digest_of
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import with_study_heads
from lib.synthetic.generate import generate
from lib.synthetic.partial import class_sets_of
from lib.volumes.study import Study, StudyItem

REHEARSAL = "rehearsal"
"""Folder and group of the study that goes along."""
SIZE = (96, 96, 24)
VALIDATES = ((8.0, 8.0, 40.0), 9200)
"""Voxel size and seed of the volume on which published weights must not get worse."""


@dataclass(frozen=True)
class RefitAlone:
    """Puts heads on a network that were refitted without what validates.

    Args:
        study: folder.
        settings: of the run, whose split holds back the validation voxels.
        weights: the published file.
    """

    study: Path
    settings: Settings
    weights: Path

    def __call__(self, net: NeuropilNet) -> NeuropilNet:
        """The network with the heads that the gate lets pass; itself where none do."""
        hierarchy = hierarchy_of(self.settings)
        digest = digest_of(self.weights)
        model = self.settings.model
        network = Network(
            net.eval(), hierarchy, digest, model.finest_nm, model.most_split,
            self.settings.inference, lambda: reservoir_for(self.weights, digest, net, hierarchy),
        )  # fmt: skip
        adaptation = self.settings.adaptation
        parts = []
        items = [i for i in load_items(self.settings, (self.study,)) if i.split.whole != "val"]
        share = max(1, adaptation.most_windows // max(len(items), 1))
        for item in items[: adaptation.most_windows]:
            assert isinstance(item.source, StudyItem)
            sets = Training(item)
            parts.append(item_rows(item.source, network, adaptation, share, None, sets))
        if not parts:
            return net
        with torch.inference_mode(False):
            heads, _ = fit_and_judge(
                Rows.joined(parts), net, hierarchy, network.reservoir, refit_options(adaptation)
            )
        return with_study_heads(net, heads)


class Training(CompactSets):
    """An item's class sets with everything unknown that validates, and the gap around it."""

    def __init__(self, item: DataItem) -> None:
        super().__init__(learned_labels(item))
        x, y, z = item.shape
        keep = np.ones(item.shape, np.bool_)
        for part in item.split.blocked(((0, x), (0, y), (0, z))):
            keep[part] = False
        self.keep, self.unknown = keep, item.hierarchy.unknown

    def __getitem__(self, index: Any, /) -> NDArray[np.int32]:
        found = super().__getitem__(index)
        return np.where(self.keep[index], found, self.unknown).astype(np.int32)


def rehearsal_study(folder: Path, settings: Settings) -> Path | None:
    """A small study of synthetic neuropil beside the weights, made once.

    Returns:
        its folder; None for classes that synthetic neuropil does not have.
    """
    hierarchy = hierarchy_of(settings)
    if hierarchy.class_names != load_hierarchy().class_names:
        return None
    study = Study(folder / REHEARSAL, hierarchy)
    made = [(f"{REHEARSAL}-{n}", *what, "train") for n, what in enumerate(MADE)]
    made.append((f"{REHEARSAL}-{len(made)}", *VALIDATES, "val"))
    for name, voxel_size_nm, seed, split in made:
        if study.has_item(name):
            continue
        volume = generate(SIZE, voxel_size_nm, seed)
        sets = class_sets_of(volume, hierarchy)
        study.add_item(name, volume.image, voxel_size_nm, sets, volume.instance, split=split)
    return study.root
