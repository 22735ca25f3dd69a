"""The class map at the level of objects, block by block: as `classes_of_objects` tells the whole.

What blocks say adds up: the votes of a cell, the voxels of an organelle, and the cells that these
lie in. Organelles that go on in the next block are one by the voxels of the face between.

.neuropil/cells/X-Y-Z.npz   what one block says, until the run is whole
.neuropil/cells.npz         cells with their values, and where each block's organelles begin in
.neuropil/stands.npy        whether each of a block's pieces of organelles stays
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib.blocks.contacts import Ids, numbered
from lib.blocks.plan import FOLDER
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.object_classes import MOSTLY, cell_votes, told_by_cells, values_of_cells
from lib.prediction.organelles import organelle_pieces
from lib.prediction.predictor import Predictor
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import Triple

Classes = NDArray[np.uint8]
Counts = NDArray[np.int64]
TABLES = ("names", "votes", "kinds", "pieces", "within", "held")
"""What a block says but for its faces, which are voxels: of these two are in memory at once."""


def count_votes(
    out: Path, index: Triple, fine: Classes, cells: Ids, hierarchy: LabelHierarchy
) -> dict[str, Any]:
    """Keep what one block says of its cells and organelles.

    Args:
        out: the output's folder.
        index: of the block.
        fine: (x, y, z) fine class + 1 of its core.
        cells: (x, y, z) uint64 ids, 0 none.
        hierarchy: of the classes.

    Returns:
        How many there are.
    """
    local, names = numbered(cells)
    pieces, kinds = organelle_pieces(fine, hierarchy)
    inside = pieces > 0
    rows, held = np.unique(np.stack([pieces[inside], local[inside]]), axis=1, return_counts=True)
    kind_of = np.zeros(int(pieces.max(initial=0)) + 1, np.uint8)
    kind_of[pieces[inside]] = kinds[inside]
    faces = {
        f"{side}{axis}": pieces.take(at, axis)
        for axis in range(3)
        for side, at in (("low", 0), ("high", -1))
    }
    with StagedFiles() as staged:
        np.savez_compressed(
            staged.create(_path(out, index)), names=names, votes=cell_votes(fine, local, hierarchy),
            kinds=kind_of, pieces=rows[0], within=names[rows[1]], held=held, **faces,
        )  # fmt: skip
        staged.commit()
    return {"cells": len(names) - 1, "organelles": len(kind_of) - 1}


def name_cells_of(out: Path, blocks: Sequence[Triple], predictor: Predictor) -> dict[str, Any]:
    """Name all cells, and say which organelles stay; every block has said what it holds.

    Args:
        blocks: the indices of all blocks.

    Returns:
        How many cells there are, and organelles that stay.
    """
    said = [_said(out, index, TABLES) for index in blocks]
    names, at = np.unique(np.concatenate([s["names"] for s in said]), return_inverse=True)
    votes = np.zeros((len(names), said[0]["votes"].shape[1]), np.int64)
    np.add.at(votes, at, np.concatenate([s["votes"] for s in said]))
    values = values_of_cells(
        votes, predictor.hierarchy, predictor.inference, predictor.classes_learned
    )
    starts = np.cumsum([0, *(len(s["kinds"]) for s in said)])
    whole = _joined(out, [s["kinds"] for s in said], blocks, starts)
    stands = _stands(said, starts, whole, predictor.inference.min_object_voxels)
    with StagedFiles() as staged:
        kept = staged.create(out / FOLDER / "cells.npz")
        np.savez_compressed(kept, names=names, values=values, starts=starts)
        np.save(staged.create(out / FOLDER / "stands.npy"), stands[whole])
        staged.commit()
    return {"cells": len(names) - 1, "organelles": int(stands.sum())}


def classes_by_cells(
    out: Path, number: int, fine: Classes, cells: Ids, predictor: Predictor
) -> Classes:
    """The classes of one block, as its cells are named.

    Args:
        number: of the block, in the order of all.
        fine, cells: see `count_votes`.

    Returns:
        (x, y, z) values as `classes_of_objects`.
    """
    local, here = numbered(cells)
    with np.load(out / FOLDER / "cells.npz") as table:
        of_cell = table["values"][np.searchsorted(table["names"], here)]
        start = int(table["starts"][number])
    pieces, _ = organelle_pieces(fine, predictor.hierarchy)
    stands = np.load(out / FOLDER / "stands.npy", mmap_mode="r")
    kept = np.asarray(stands[start : start + int(pieces.max(initial=0)) + 1])[pieces]
    return told_by_cells(fine, of_cell[local], kept, predictor.hierarchy, predictor.classes_learned)


def remove_votes(out: Path) -> None:
    """Remove what only the naming of cells needed."""
    if (folder := out / FOLDER / "cells").is_dir():
        shutil.rmtree(folder)


def _said(out: Path, index: Triple, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    with np.load(_path(out, index)) as data:
        return {name: data[name] for name in names}


def _joined(
    out: Path, kinds: Sequence[Classes], blocks: Sequence[Triple], starts: Counts
) -> Counts:
    """The organelle that each piece of each block belongs to.

    Args:
        kinds: of each block's pieces.
        starts: where each block's pieces begin among all.
    """
    place = {index: n for n, index in enumerate(blocks)}
    pairs = [np.zeros((2, 0), np.int64)]
    for index, n in place.items():
        for axis in range(3):
            x, y, z = (i + (a == axis) for a, i in enumerate(index))
            m = place.get((x, y, z))
            if m is None:
                continue
            one = _said(out, index, [f"high{axis}"])[f"high{axis}"]
            other = _said(out, (x, y, z), [f"low{axis}"])[f"low{axis}"]
            same = (one > 0) & (kinds[n][one] == kinds[m][other])
            touching = np.stack([one[same] + starts[n], other[same] + starts[m]])
            pairs.append(np.unique(touching.astype(np.int64), axis=1))
    rows, columns = np.concatenate(pairs, 1)
    size = int(starts[-1])
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), (size, size))
    _, whole = connected_components(graph, directed=False)
    return np.asarray(whole, np.int64)


def _stands(
    said: Sequence[dict[str, NDArray[Any]]], starts: Counts, whole: Counts, least_voxels: int
) -> NDArray[np.bool_]:
    """Whether each organelle is large enough, and most of it lies in one cell."""
    pieces = np.concatenate(
        [whole[s["pieces"] + start] for s, start in zip(said, starts[:-1], strict=True)]
    )
    within = np.concatenate([s["within"] for s in said])
    held = np.concatenate([s["held"] for s in said])
    count = int(whole.max(initial=-1)) + 1
    sizes, most, outside = (np.zeros(count, np.int64) for _ in range(3))
    np.add.at(sizes, pieces, held)
    np.add.at(outside, pieces[within == 0], held[within == 0])
    cells, cell = np.unique(within[within > 0], return_inverse=True)
    keys, at = np.unique(pieces[within > 0] * len(cells) + cell, return_inverse=True)
    together = np.zeros(len(keys), np.int64)
    np.add.at(together, at, held[within > 0])
    np.maximum.at(most, keys // max(1, len(cells)), together)
    large = sizes >= max(least_voxels, 1)
    stands: NDArray[np.bool_] = large & (most > outside) & (most >= MOSTLY * sizes)
    return stands


def _path(out: Path, index: Triple) -> Path:
    return out / FOLDER / "cells" / f"{index[0]}-{index[1]}-{index[2]}.npz"
