"""Fragments as far as they lie in one object, and the cheapest change of an object by the network's
answer to points: a cut inside it costs what its contacts say for it, a fragment that stays what the
answer says against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import fastremap
import numpy as np
from bioimage_cpp.graph import distributed
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from lib.clicks.ground import UNKNOWN_LOGIT, Ground, Ids
from lib.clicks.masks import Mask
from lib.volumes.boxes import Box

ALWAYS = 1e9
"""Cost of going against a point."""
STAYS = 1e-3
"""Cost of changing a piece that no contact speaks of."""
STEPS = 1e6
"""Whole numbers of flow that the dearest contact is worth, at most."""
LARGEST_FLOW = 2**28
"""All costs together, in these numbers: the solver counts in 32 bits."""


@dataclass(frozen=True)
class Pieces:
    """Fragments as far as they lie in one object.

    Args:
        ids: (x, y, z) uint32 pieces 1..P, 0 none.
        objects: (P + 1,) int64 the object of each.
        edges: (E, 2) int64 pieces that touch.
        logits: (E,) log odds that two of them belong together.
        sizes: (E,) voxel pairs in contact.
    """

    ids: Ids
    objects: NDArray[np.int64]
    edges: NDArray[np.int64]
    logits: NDArray[np.float64]
    sizes: NDArray[np.float64]


def pieces_of(
    ground: Ground, box: Box, standing: Ids, wanted: Mask, beyond: Mask | None = None
) -> Pieces:
    """The pieces of some objects.

    Args:
        ground: that holds the box.
        box: network voxels.
        standing: (x, y, z) objects of the box.
        wanted: (x, y, z) voxels of the objects that are asked for.
        beyond: (x, y, z) voxels that are pieces of their own, since they were cut off.
    """
    width = len(ground.cells)
    keys = standing.astype(np.uint64) * width + ground.read(box)
    keys = np.where(wanted, 2 * keys + (0 if beyond is None else beyond), 0)
    ids, names = fastremap.renumber(keys, preserve_zero=True)
    ids = np.ascontiguousarray(ids, np.uint32)
    key = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
    for old, new in names.items():
        key[new] = old
    objects, fragments = np.divmod(key // 2, width)
    edges = distributed.block_region_adjacency_edges(ids, [0, 0, 0], list(ids.shape))
    edges = edges[edges[:, 0] > 0].astype(np.int64)
    pairs = fragments[edges]
    logits, sizes = ground.contacts(pairs)
    same = objects[edges[:, 0]] == objects[edges[:, 1]]
    # Somebody cut this fragment, or drew where there is none.
    told = np.isnan(logits) | (pairs[:, 0] == pairs[:, 1])
    logits[told] = np.where(same[told], UNKNOWN_LOGIT, -UNKNOWN_LOGIT)
    return Pieces(ids, objects, edges, logits, sizes)


def cheapest(
    pieces: Pieces, base: int, positive: NDArray[np.int64], answer: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which pieces of an object that nobody has seen yet are the clicked one.

    Args:
        pieces: of the objects that hold points.
        base: the object.
        positive: pieces that hold points for it.
        answer: (P + 1,) what the network's prompted answer is worth for (above 0) or against
            each piece.

    Returns:
        (P + 1,) bool.

    Source: Boykov & Jolly 2001 (binary labels by a minimum cut).
    """
    own = pieces.objects == base
    inward = np.maximum(answer, 0.0) + STAYS
    outward = np.maximum(-answer, 0.0)
    inward[positive], outward[positive] = ALWAYS, 0.0
    inward[~own], outward[~own] = 0.0, ALWAYS
    one, other = pieces.edges.T
    inside = own[one] & own[other]
    together = np.logaddexp(0.0, pieces.logits[inside]) * pieces.sizes[inside]
    found = _minimum_cut(pieces.edges[inside], together, inward, outward)
    chosen: NDArray[np.bool_] = found & own
    chosen[0] = False
    return chosen


def _minimum_cut(
    edges: NDArray[np.int64],
    costs: NDArray[np.float64],
    inward: NDArray[np.float64],
    outward: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(N,) the side of the source of the cheapest cut.

    Args:
        edges: (E, 2) nodes; parting them costs (E,).
        inward: (N,) cost of not being on the source's side; outward: of being there.
    """
    count = len(inward)
    source, sink = count, count + 1
    flows = np.concatenate([costs, inward, outward])
    flows = flows[flows < ALWAYS]
    unit = min(
        STEPS / max(float(flows.max(initial=0.0)), 1e-9),
        LARGEST_FLOW / max(float(flows.sum()), 1e-9),
    )
    nodes = np.arange(count)
    rows = np.concatenate([edges[:, 0], edges[:, 1], np.full(count, source), nodes])
    columns = np.concatenate([edges[:, 1], edges[:, 0], nodes, np.full(count, sink)])
    values = np.concatenate([costs, costs, inward, outward])
    whole = np.where(values >= ALWAYS, LARGEST_FLOW, np.rint(np.minimum(values, ALWAYS) * unit))
    capacity = coo_matrix((whole.astype(np.int32), (rows, columns)), (count + 2, count + 2))
    capacity = capacity.tocsr()
    left = capacity - maximum_flow(capacity, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    side = np.zeros(count + 2, np.bool_)
    side[reached] = True
    return side[:count]
