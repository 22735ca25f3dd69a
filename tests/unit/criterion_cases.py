"""Random batches for the tests of targets and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lib.labels.hierarchy import LabelHierarchy, flat_hierarchy, load_hierarchy

HIERARCHY = load_hierarchy()
TWO_CLASSES = flat_hierarchy(2)
ANISOTROPIC = (6.0, 6.0, 30.0)


def cells(
    rng: np.random.Generator, shape: tuple[int, ...], objects: int, unknown: float = 0.0
) -> np.ndarray:
    """Touching convex cells with some background; `unknown`: share of space not known."""
    axes = [np.arange(n) for n in shape]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    seeds = rng.random((2 * objects + 4, len(shape))) * shape
    nearest = cKDTree(seeds).query(place)[1].reshape(shape)
    ids = np.where(nearest < objects, nearest + 1, 0)
    if unknown:
        blobs = cKDTree(rng.random((12, len(shape))) * shape).query(place)[1].reshape(shape)
        ids = np.where(blobs < round(12 * unknown), -1, ids)
    return ids.astype(np.int64)


def random_batch(
    seed: int,
    shape: tuple[int, ...] = (9, 8, 5),
    batch: int = 2,
    objects: int = 5,
    unknown: float = 0.25,
    hierarchy: LabelHierarchy = HIERARCHY,
    spacing: tuple[float, ...] = ANISOTROPIC,
) -> dict[str, Any]:
    """A batch with fully, partly and not known classes, and known and unknown objects."""
    rng = np.random.default_rng(seed)
    instance = np.stack([cells(rng, shape, objects, unknown) for _ in range(batch)])
    single = 1 << rng.integers(0, hierarchy.num_classes, instance.shape)
    any_set = rng.integers(1, hierarchy.unknown + 1, instance.shape)
    kind = rng.random(instance.shape)
    sets = np.where(kind < 0.5, single, np.where(kind < 0.8, any_set, hierarchy.unknown))
    return {
        "image": torch.from_numpy(rng.random((batch, 1, *shape))).float(),
        "class_sets": torch.from_numpy(sets).int(),
        "instance": torch.from_numpy(instance),
        "voxel_size_nm": torch.tensor([spacing] * batch),
    }


def random_outputs(
    seed: int,
    batch: dict[str, Any],
    hierarchy: LabelHierarchy = HIERARCHY,
    embedding: int = 4,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Network outputs that fit a batch, as leaves that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    samples, *shape = batch["instance"].shape
    dims = len(shape)
    channels = {
        "semantic": hierarchy.num_classes,
        "coarse": hierarchy.num_groups,
        "instance": embedding,
        "geometry": dims + dims * dims + 4,
    }
    return {
        name: torch.randn((samples, c, *shape), generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for name, c in channels.items()
    }
