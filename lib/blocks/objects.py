"""The fragments of all blocks become objects: one graph, one join.

.neuropil/graph.npz         fragments, which of them touch, by their places in `names` from 1 on,
                            and their votes; the blocks' parts have what is known of contacts
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
from lib.blocks.parts import PartContacts, load_votes
from lib.blocks.plan import FOLDER
from lib.prediction.classes import FINE_VALUE
from lib.prediction.graph import FragmentGraph, merge_contacts
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.prediction.scratch import Scratch
from lib.volumes.atomic import StagedFiles

IN_MEMORY = 2**26
"""Bytes of what is known of contacts that are kept in memory; more lies on the disk."""
GUARD = 0.5
"""From this share of all object voxels on, the largest object is told as a likely merge."""


def join_fragments(out: Path, predictor: Predictor) -> dict[str, Any]:
    """Join the fragments of all blocks into objects; every block has its part.

    Returns:
        How many there are, and the largest one's share.
    """
    names, votes = _voted(out, predictor.hierarchy.num_classes + FINE_VALUE)
    with Scratch(IN_MEMORY, out / FOLDER) as scratch:
        graph = merge_contacts(PartContacts(out, names), votes, scratch)
        return _join(out, predictor, names, graph)


def _voted(out: Path, class_values: int) -> tuple[Ids, NDArray[np.int64]]:
    """The fragments that have voxels, ascending, and their votes; row 0 is of what is in none."""
    names = fastremap.unique(np.concatenate([voted for (voted,) in load_votes(out, "voted")]))
    total = np.zeros((len(names) + 1, class_values), np.int64)
    for voted, votes, background in load_votes(out, "voted", "votes", "background"):
        total[np.searchsorted(names, voted) + 1] += votes  # a block tells of each once
        total[0] += background
    return names, total


def _join(out: Path, predictor: Predictor, names: Ids, graph: FragmentGraph) -> dict[str, Any]:
    """Join the fragments of a graph, and keep what came of it."""
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
        np.savez_compressed(kept, names=names, edges=graph.edges, votes=graph.votes)
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
