"""A network whose answers follow from the grey value, and small studies for it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.configs.settings import QuerySettings, Settings
from lib.labels.hierarchy import load_hierarchy
from lib.queries.acquisition import Candidates
from lib.queries.regions import RegionGrid
from lib.queries.scores import ItemScores, save_scores, scores_path
from lib.queries.store import ScoreStore, fingerprint
from lib.volumes.study import Study, StudyItem

HIERARCHY = load_hierarchy()
AXON, DENDRITE = 3, 2


class GreyNet(nn.Module):
    """Bright voxels are surely axon; dark ones could be anything.

    The coarse head contradicts the fine one in voxels of medium grey.
    """

    spatial_dims = 3
    feature_channels = 2
    task_heads = SimpleNamespace(study=None)

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def features(self, image: Tensor) -> Tensor:
        return torch.cat([image, image * 2], 1)

    def heads(
        self,
        features: Tensor,
        prompts: object = None,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        grey = features[:, 0]
        semantic = torch.zeros((grey.shape[0], 12, *grey.shape[1:]))
        semantic[:, AXON] = torch.where(grey > 0.25, 30.0, 0.0)
        coarse = torch.full((grey.shape[0], 5, *grey.shape[1:]), -30.0)
        coarse[:, 0] = 30.0
        middle = (grey > 0.25) & (grey < 0.75)
        coarse[:, 0][middle] = -30.0
        coarse[:, 1][middle] = 30.0
        return {"semantic": semantic, "coarse": coarse}

    def prompted(
        self,
        features: Tensor,
        prompts: object,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        out = self.heads(features)["semantic"]
        return {"semantic": out.roll(1, 1)}  # every sure voxel changes its class


def settings(region: tuple[int, int, int] = (8, 8, 2), prompted: bool = False) -> Settings:
    modes = ["automatic", "proofread"] if prompted else ["automatic"]
    return Settings.model_validate(
        {
            "queries": {"region": region},
            "training": {"training_modes": modes},
            "inference": {"window": (16, 16, 4), "precision": "float32"},
        }
    )


def add_item(
    study: Study, name: str, known: NDArray[np.bool_] | None = None, seed: int = 0
) -> StudyItem:
    """An item of 16 x 16 x 4 voxels whose known voxels are axon."""
    image = np.random.default_rng(seed).integers(0, 255, (16, 16, 4), np.uint8)
    sets = None if known is None else np.where(known, 1 << AXON, HIERARCHY.unknown).astype(np.int32)
    item, _ = study.add_item(name, image, (8.0, 8.0, 40.0), sets, replace=True)
    return item


def make_scores(
    item: StudyItem, entropy: NDArray[np.float32], weights: str = "w", **rows: NDArray[np.float32]
) -> ItemScores:
    """Scores of an item of 8 regions, stored; rows that are not given are flat."""
    grid = RegionGrid.of(item.shape, (8, 8, 2))
    count = grid.count
    flat = {
        "disagreement": np.full(count, 0.1),
        "prompted": np.full(count, np.nan),
        "class_entropy": np.tile(entropy[:, None], (1, 12)),
        "class_share": np.full((count, 12), 1 / 12),
        "features": np.zeros((count, 2)),
    }
    values = {n: np.asarray(rows.get(n, v), np.float32) for n, v in flat.items()}
    heat_grid = RegionGrid.of(item.shape, (4, 4, 1))
    scores = ItemScores(
        weights, fingerprint(item), (8, 8, 2), grid, np.asarray(entropy, np.float32),
        heat=np.zeros((2, *heat_grid.cells), np.uint8), heat_grid=heat_grid, **values,
    )  # fmt: skip
    save_scores(scores_path(item.study.root, item.id), scores)
    return scores


def store_in(folder: Path, **queries: object) -> ScoreStore:
    """An empty study's store with regions of 8 x 8 x 2 voxels."""
    return ScoreStore(
        Study(folder, HIERARCHY), QuerySettings.model_validate({"region": (8, 8, 2), **queries})
    )


def candidates(n: int = 6, **given: object) -> Candidates:
    """Figures of N regions of two classes; those that are not given are flat."""
    flat: dict[str, object] = {
        "entropy": np.full(n, 0.2),
        "disagreement": np.full(n, 0.1),
        "prompted": np.full(n, np.nan),
        "class_entropy": np.full((n, 2), 0.1),
        "class_share": np.full((n, 2), 0.5),
        "features": np.zeros((n, 3)),
        "known": np.zeros(n),
        **given,
    }
    return Candidates(**{k: np.asarray(v, np.float32) for k, v in flat.items()})
