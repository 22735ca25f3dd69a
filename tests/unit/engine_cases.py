"""Tiny studies and settings for the tests of lib/data and lib/engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.configs.load import load_settings
from lib.configs.settings import Settings
from lib.data.items import DataItem, labelled_items
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
ISOTROPIC, SECTIONS = (10.0, 10.0, 10.0), (10.0, 10.0, 40.0)


def tiny_settings(**changes: Any) -> Settings:
    """A network and a run small enough for a test; keys with "__" for the dot."""
    defaults: dict[str, Any] = {
        "model.feature_size": 8,
        "model.head_size": 4,
        "model.embedding_size": 3,
        "loss.weight_prompt": 1.0,
        "training.max_epochs": 3,
        "training.steps_per_epoch": 2,
        "training.warmup_steps": 1,
        "training.val_interval": 1,
        "training.image_interval": 100,
        "training.amp": "off",
        "training.fractionary_prompts": True,
        "data.patch_size": [32, 32, 8],
    }
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return load_settings(None, defaults | given)


def cells(shape: tuple[int, int, int], size: int = 8, seed: int = 0) -> NDArray[np.int64]:
    """Objects 1.. on a grid of boxes, with gaps of no object between them."""
    index = np.indices(shape)
    inside = (index % size != 0).all(0) if shape[2] > 1 else (index[:2] % size != 0).all(0)
    counts = [-(-n // size) for n in shape]
    number = np.ravel_multi_index(tuple(i // size for i in index), counts) + 1
    return np.where(inside, number, 0).astype(np.int64)


def classes_of(ids: NDArray[np.int64], hierarchy: LabelHierarchy = HIERARCHY) -> NDArray[np.int32]:
    """Extracellular space between objects; objects are dendrite, axon or mitochondria in turn."""
    sets = np.full(ids.shape, hierarchy.set_named("extracellular space"), np.int32)
    for remainder, name in enumerate(("dendrite", "axon", "mitochondria")):
        sets[(ids > 0) & (ids % 3 == remainder)] = hierarchy.set_named(name)
    return sets


def add_cells(
    study: Study,
    item_id: str,
    shape: tuple[int, int, int] = (64, 64, 16),
    voxel_size_nm: tuple[float, float, float] = SECTIONS,
    known: NDArray[np.bool_] | None = None,
    **record: Any,
) -> None:
    """An item whose image shows its objects; unknown where `known` is False."""
    ids = cells(shape)
    sets = classes_of(ids)
    noise = np.random.default_rng(len(item_id)).integers(0, 40, shape)
    image = (np.where(ids > 0, 90 + 40 * (ids % 3), 20) + noise).astype(np.uint8)
    if known is not None:
        sets[~known] = study.hierarchy.unknown
        ids[~known] = -1
    study.add_item(item_id, image, voxel_size_nm, sets, ids, **record)


def tiny_study(root: Path) -> Study:
    """A training volume and a validation volume."""
    study = Study(root, HIERARCHY)
    add_cells(study, "a-train", split="train")
    add_cells(study, "a-val", (32, 32, 8), split="val")
    return study


def items_of(study: Study, val_fraction: float = 0.2, cache_bytes: int = 2**28) -> list[DataItem]:
    """The study's labelled items."""
    return labelled_items(study.items(), study.hierarchy, val_fraction, cache_bytes)
