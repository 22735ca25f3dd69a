"""Rows whose class follows from one feature, and a network that does not know it yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lib.adaptation.network import Network
from lib.adaptation.rehearsal import Reservoir
from lib.adaptation.row_losses import Logits
from lib.adaptation.rows import FOLDS, Rows
from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.filters import COUNT as FILTERS
from lib.volumes.study import Study, StudyItem

HIERARCHY = load_hierarchy()
UNKNOWN = HIERARCHY.unknown
DENDRITE, AXON, MYELIN = (HIERARCHY.class_names.index(n) for n in ("dendrite", "axon", "myelin"))
DIGEST = "0" * 64
VOXEL = (10.0, 10.0, 10.0)
INFERENCE = InferenceSettings(window=(32, 32, 8), overlap=0.0, precision="float32")


def rows_of(
    features: torch.Tensor, sets: torch.Tensor, blocks: int = 16, weight: float = 10.0
) -> Rows:
    """Rows dealt out to blocks in turn."""
    block = torch.arange(len(sets)) % blocks
    fold = block % FOLDS
    return Rows(
        features, sets.int(), torch.full((len(sets),), weight), block, fold, 1 << fold
    )  # fmt: skip


def saying(classes: int, count: int, sure: float = 4.0) -> Logits:
    """Published heads that say one class everywhere."""
    logits = torch.zeros((count, HIERARCHY.num_classes))
    logits[:, classes] = sure
    return Logits(logits, torch.zeros((count, HIERARCHY.num_groups)))


def two_classes(count: int = 1600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 4) features, and sets: axon where the first one is positive, else dendrite."""
    features = torch.randn((count, 4), generator=torch.Generator().manual_seed(seed))
    sets = torch.where(features[:, 0] > 0, 1 << AXON, 1 << DENDRITE)
    return features, sets


def network(seed: int = 0) -> NeuropilNet:
    torch.manual_seed(seed)
    model = ModelSettings(feature_size=8, head_size=8, embedding_size=2)
    return build_network(model, LossSettings(weight_geometry=0.0), HIERARCHY).eval()


def published(net: NeuropilNet | None = None, digest: str = DIGEST) -> Network:
    """A network without rehearsal rows."""
    net = net or network()
    empty = Reservoir(
        torch.zeros((0, net.feature_channels + FILTERS)), torch.zeros(0, dtype=torch.int32), digest
    )
    return Network(net, HIERARCHY, digest, 0.0, 1, INFERENCE, lambda: empty)


def striped(
    shape: tuple[int, int, int] = (64, 64, 8),
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """An image of bright and dark stripes, and its classes: axon is bright, dendrite dark."""
    shape = (64, 64, 8)
    bright = (np.arange(shape[0]) // 4 % 2 == 0)[:, None, None] & np.ones(shape, bool)
    noise = np.random.default_rng(0).integers(0, 40, shape)
    image = (np.where(bright, 180, 30) + noise).astype(np.uint8)
    return image, np.where(bright, 1 << AXON, 1 << DENDRITE).astype(np.int32)


def striped_study(root: Path, known: NDArray[np.bool_] | None = None) -> tuple[Study, StudyItem]:
    """A study of one striped item, known in part."""
    image, sets = striped()
    if known is not None:
        sets = np.where(known, sets, UNKNOWN).astype(np.int32)
    study = Study(root, HIERARCHY)
    item, _ = study.add_item("stripes", image, VOXEL, sets)
    return study, item
