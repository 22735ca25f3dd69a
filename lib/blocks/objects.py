"""The fragments of all blocks become objects: one graph, one join.

.neuropil/graph.npz         the fragment graph, fragments numbered as in `names`
.neuropil/lut-*.npy         fragment -> object, sorted by fragment
.neuropil/objects.npz       objects with their classes and sizes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.blocks.contacts import Ids
from lib.blocks.parts import load_contacts, load_votes
from lib.blocks.plan import FOLDER
from lib.prediction.graph import REACHES, BlockContacts, merge_contacts
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.volumes.atomic import StagedFiles

GUARD = 0.5
"""From this share of all object voxels on, the largest object is told as a likely merge."""


def join_fragments(out: Path, predictor: Predictor) -> dict[str, Any]:
    """Join the fragments of all blocks into objects; every block has its part.

    Returns:
        How many there are, and the largest one's share.
    """
    loaded = load_votes(out)
    names, index = np.unique(np.concatenate([p["voted"] for p in loaded]), return_inverse=True)
    votes = np.zeros((len(names) + 1, loaded[0]["votes"].shape[1]), np.int64)
    np.add.at(votes, index + 1, np.concatenate([p["votes"] for p in loaded]))
    votes[0] = sum(p["background"] for p in loaded)
    contacts = [_numbered(part, names) for part in load_contacts(out)]
    graph = merge_contacts(contacts, votes)
    one_voxel_each = np.arange(len(names) + 1, dtype=np.uint32).reshape(-1, 1, 1)
    found = Fragments(one_voxel_each, graph).objects(
        predictor.joining, predictor.hierarchy, predictor.inference.min_object_voxels
    )
    cells = found.ids.reshape(-1)[1:].astype(np.int64)
    named = np.full(found.count + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(named, cells, names)
    named[0] = 0
    with StagedFiles() as staged:
        kept = staged.create(out / FOLDER / "graph.npz")
        np.savez_compressed(
            kept, names=names, edges=graph.edges, stats=graph.stats, votes=graph.votes
        )
        np.save(staged.create(out / FOLDER / "lut-fragments.npy"), names)
        np.save(staged.create(out / FOLDER / "lut-objects.npy"), named[cells])
        table = staged.create(out / FOLDER / "objects.npz")
        np.savez_compressed(table, ids=named[1:], classes=found.classes[1:], sizes=found.sizes[1:])
        staged.commit()
    told: dict[str, Any] = {"objects": found.count, "largest_share": round(found.largest_share, 4)}
    if found.largest_share > GUARD and found.count > 1:
        told["warning"] = "one object holds most of all voxels: look for a merge"
    return told


def objects_of(out: Path, fragments: Ids) -> Ids:
    """The objects of a block's fragments, 0 where there is none."""
    names = np.load(out / FOLDER / "lut-fragments.npy", mmap_mode="r")
    objects = np.load(out / FOLDER / "lut-objects.npy", mmap_mode="r")
    present = fastremap.unique(fragments)
    found = np.zeros(len(present), np.uint64)
    some = present > 0
    at = np.searchsorted(names, present[some])
    found[some] = objects[at]
    mapped: Ids = found[np.searchsorted(present, fragments)]
    return mapped


def _numbered(part: dict[str, NDArray[Any]], names: Ids) -> BlockContacts:
    """A part's contacts by number; those with a fragment that has no voxel of its own go."""
    edges, keep = _numbers(part["edges"], names)
    stats = []
    for reach in range(len(REACHES)):
        pairs, kept = _numbers(part[f"pairs{reach}"], names)
        stats.append((pairs[kept], part[f"stats{reach}"][kept]))
    return BlockContacts(edges[keep], tuple(stats))


def _numbers(pairs: Ids, names: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    at = np.searchsorted(names, pairs).clip(max=len(names) - 1)
    return (at + 1).astype(np.uint64), (names[at] == pairs).all(1)
