"""Objects of a volume larger than memory: fragments block by block, one graph, one join.

A fragment is known by the voxel of the volume that it grew from, plus one: blocks agree on ids
without asking each other, and an object takes the smallest id of its fragments, so that nothing
is ever numbered anew. What blocks say of contacts adds up exactly.

    .neuropil/parts/X-Y-Z.part.npz      contacts and votes of one block
    .neuropil/parts/X-Y-Z.faces.npz     what its contacts with the next blocks need
    .neuropil/parts/X-Y-Z.between.npz   these contacts
    .neuropil/graph.npz         the fragment graph, fragments numbered as in `names`
    .neuropil/lut-*.npy         fragment -> object, sorted by fragment
    .neuropil/objects.npz       objects with their classes and sizes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.blocks.plan import FOLDER
from lib.prediction.boundary import (
    BoundaryScale,
    boundary_histogram,
    boundary_map,
    boundary_scale,
)
from lib.prediction.evidence import Evidence, collect_evidence
from lib.prediction.fragments import fragments_of_block
from lib.prediction.graph import REACHES, BlockContacts, contacts_of_block, merge_contacts
from lib.prediction.instances import (
    Fragments,
    block_overlap,
    count_contacts,
    global_places,
)
from lib.prediction.predictor import Predictor
from lib.prediction.scratch import Scratch
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    box_slices,
    intersect,
    minus,
    shift_box,
    tile_boxes,
    whole_box,
)
from lib.volumes.contrast import intensity_window
from lib.volumes.crop import Crop, widen
from lib.volumes.frames import FramedImage

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
Stats = tuple[tuple[Ids, NDArray[np.float64]], ...]
SAMPLED = 12
"""Windows by which a volume's boundaries are judged."""
GUARD = 0.5
"""From this share of all object voxels on, the largest object is told as a likely merge."""


@dataclass(frozen=True)
class Contacts:
    """Contacts of fragments by their ids in the volume.

    Args:
        edges: (E, 2) fragments that touch.
        stats: for each reach (P, 2) pairs and (P, 5) statistics, see `BlockContacts`.
    """

    edges: Ids
    stats: Stats


@dataclass(frozen=True)
class Face:
    """What a block keeps for its contacts with the neighbours along one axis.

    Args:
        offsets: of the pairs along the axis.
        low, high: fragments of its first and last voxels, as deep as the longest offset.
        affinities: (A, *high) of the pairs that start in `high`.
    """

    offsets: tuple[Triple, ...]
    low: Ids
    high: Ids
    affinities: NDArray[np.float16]


@dataclass(frozen=True)
class Part:
    """What one block says of objects.

    Args:
        ids: (x, y, z) uint64 fragments of the core, 0 none.
        classes: (x, y, z) uint8 fine class + 1.
        voted: (F,) fragments that have voxels in the core.
        votes: (F, C) these voxels by class value.
        background: (C,) voxels in no fragment.
        contacts: of fragments inside the core.
        faces: along x, y, z.
    """

    ids: Ids
    classes: NDArray[np.uint8]
    voted: Ids
    votes: Counts
    background: Counts
    contacts: Contacts
    faces: tuple[Face, ...]


def fragments_in(
    predictor: Predictor,
    view: FramedImage,
    voxel_size_nm: tuple[float, float, float],
    core: Box,
    scale: BoundaryScale,
    folder: Path,
) -> Part:
    """The fragments of one block and their contacts.

    Args:
        view: the whole volume as the network sees it.
        voxel_size_nm: of the view.
        core: what the block writes, network voxels.
        scale: of the volume's boundaries.
        folder: output, where large intermediate arrays may lie.
    """
    inference = predictor.inference
    overlap = block_overlap(voxel_size_nm, inference)
    margin = tuple(n - n // 2 for n in overlap)
    halo = (margin[0], margin[1], margin[2])
    outer = widen(core, halo, view.shape)
    tile = [max(1, n - 2 * m) for n, m in zip(inference.instance_block, halo, strict=True)]
    ids = np.zeros(box_shape(core), np.uint64)
    with Scratch(inference.tile_bytes, folder / FOLDER) as scratch:
        evidence = collect_evidence(
            predictor.net, view, voxel_size_nm, inference, predictor.hierarchy, scratch, box=outer
        )
        origin = minus(box_origin(outer))
        for own in tile_boxes(core, (tile[0], tile[1], tile[2])):
            wide = intersect(widen(own, halo, view.shape), outer)
            assert wide is not None
            here = shift_box(wide, origin)
            foreground = np.asarray(evidence.foreground[box_slices(here)])
            labels, places = fragments_of_block(
                *evidence.nearest(here), foreground, voxel_size_nm, scale
            )
            names = (global_places(places, wide, view.shape) + 1).astype(np.uint64)
            found = labels[box_slices(shift_box(own, minus(box_origin(wide))))]
            ids[box_slices(shift_box(own, minus(box_origin(core))))] = names[found]
        return _part(ids, _within(evidence, shift_box(core, origin)), voxel_size_nm, tile)


def _within(evidence: Evidence, box: Box) -> Evidence:
    """The evidence of a part."""
    where = box_slices(box)
    return Evidence(
        evidence.affinities[(slice(None), *where)], evidence.offsets, evidence.classes[where],
        evidence.foreground[where], evidence.class_values,
    )  # fmt: skip


def _part(
    ids: Ids, evidence: Evidence, voxel_size_nm: tuple[float, float, float], tile: list[int]
) -> Part:
    """What a block says, from the fragments and the evidence of its core."""
    local, table = fastremap.renumber(ids)
    local = local.astype(np.uint32, copy=False)
    names = np.zeros(len(table) + (0 not in table), np.uint64)
    for name, number in table.items():
        names[number] = name
    values = evidence.class_values
    classes = np.array(evidence.classes)
    votes = np.bincount(
        local.ravel().astype(np.int64) * values + classes.ravel(), minlength=len(names) * values
    ).reshape(-1, values)
    counted = [
        count_contacts(evidence, local, box, voxel_size_nm)
        for box in tile_boxes(whole_box(evidence.shape), (tile[0], tile[1], tile[2]))
    ]
    edges, stats = _named(counted, names)
    faces = tuple(_face(ids, evidence, axis) for axis in range(3))
    return Part(ids, classes, names[1:], votes[1:], votes[0], Contacts(edges, stats), faces)


def _face(ids: Ids, evidence: Evidence, axis: int) -> Face:
    """What the contacts with the block before and the one after along an axis need."""
    channels = [i for i, o in enumerate(evidence.offsets) if o[axis]]
    offsets = tuple(evidence.offsets[i] for i in channels)
    reach = max((o[axis] for o in offsets), default=0)
    size = ids.shape[axis]
    low: list[Any] = [slice(None)] * 3
    high: list[Any] = [slice(None)] * 3
    low[axis], high[axis] = slice(0, reach), slice(max(0, size - reach), size)
    upper: tuple[Any, ...] = tuple(high)
    affinities = (
        np.stack([evidence.affinities[(i, *upper)] for i in channels])
        if channels
        else (np.zeros((0, *ids[upper].shape), np.float16))
    )
    return Face(offsets, ids[tuple(low)].copy(), ids[upper].copy(), affinities)


def face_contacts(
    one: Face, other: Face, axis: int, voxel_size_nm: tuple[float, float, float]
) -> Contacts:
    """The contacts of a block with the next one along an axis.

    Args:
        one: of the block; other: of the next one.
    """
    counted, everything = [], np.concatenate([one.high, other.low], axis)
    local, table = fastremap.renumber(everything)
    names = np.zeros(len(table) + (0 not in table), np.uint64)
    for name, number in table.items():
        names[number] = name
    own = one.high.shape[axis]
    for channel, offset in enumerate(one.offsets):
        reach = offset[axis]
        first = max(0, own - reach)  # all pairs from here on end in the next block
        part = [slice(None)] * 3
        part[axis] = slice(first, min(own + reach, local.shape[axis]))
        fragments = np.ascontiguousarray(local[tuple(part)].astype(np.uint32))
        affinities = np.zeros((1, *fragments.shape), np.float16)
        inside: list[Any] = [slice(None)] * 3
        inside[axis] = slice(first, own)
        there: list[Any] = [slice(None)] * 3
        there[axis] = slice(0, own - first)
        affinities[(0, *there)] = one.affinities[(channel, *inside)]
        spans = [(0, n) for n in fragments.shape]
        spans[axis] = (0, own - first)
        box = (spans[0], spans[1], spans[2])
        found = contacts_of_block(fragments, affinities, (offset,), voxel_size_nm, box)
        bare = BlockContacts(np.zeros((0, 2), np.uint64), found.stats)
        counted.append(found if reach == 1 else bare)
    return Contacts(*_named(counted, names))


def _named(counted: Sequence[BlockContacts], names: Ids) -> tuple[Ids, Stats]:
    """Contacts by the fragments' ids in the volume, those with what is no fragment left out."""
    edges = [_pairs_named(c.edges, names) for c in counted]
    stats = []
    for reach in range(len(REACHES)):
        pairs = [c.stats[reach][0] for c in counted]
        values = [c.stats[reach][1] for c in counted]
        keep = [(p > 0).all(1) for p in pairs]
        named = [_pairs_named(p, names) for p in pairs]
        stats.append(
            (_joined(named, 2), _joined([v[k] for v, k in zip(values, keep, strict=True)], 5))
        )
    together: Ids = _joined(edges, 2)
    return np.unique(together, axis=0), tuple(stats)


def _pairs_named(pairs: Ids, names: Ids) -> Ids:
    kept = pairs[(pairs > 0).all(1)].astype(np.int64)
    found: Ids = np.sort(names[kept], 1).reshape(-1, 2)
    return found


def _joined(arrays: Sequence[NDArray[Any]], width: int) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros((0, width))


def save_part(out: Path, index: Triple, part: Part) -> None:
    """Keep what a block says until all blocks are there."""
    votes = {"voted": part.voted, "votes": part.votes, "background": part.background}
    faces: dict[str, NDArray[Any]] = {}
    for axis, face in enumerate(part.faces):
        faces[f"offsets{axis}"] = np.array(face.offsets, np.int64).reshape(-1, 3)
        faces |= {f"low{axis}": face.low, f"high{axis}": face.high}
        faces[f"affinities{axis}"] = face.affinities
    with StagedFiles() as staged:
        np.savez_compressed(staged.create(_path(out, "faces", index)), **faces)
        own = staged.create(_path(out, "part", index))
        np.savez_compressed(own, **votes, **_arrays(part.contacts))
        staged.commit()


def contacts_between(out: Path, index: Triple, voxel_size_nm: tuple[float, float, float]) -> int:
    """Count the contacts of a block with the next ones along each axis; both have their parts.

    Returns:
        How many contacts there are.
    """
    found = []
    for axis in range(3):
        x, y, z = (i + (a == axis) for a, i in enumerate(index))
        following = _path(out, "faces", (x, y, z))
        if following.exists():
            one, other = _load_face(_path(out, "faces", index), axis), _load_face(following, axis)
            found.append(face_contacts(one, other, axis, voxel_size_nm))
    edges = _joined([f.edges for f in found], 2).astype(np.uint64)
    stats = tuple(
        (
            _joined([f.stats[r][0] for f in found], 2).astype(np.uint64),
            _joined([f.stats[r][1] for f in found], 5),
        )
        for r in range(len(REACHES))
    )
    with StagedFiles() as staged:
        file = staged.create(_path(out, "between", index))
        np.savez_compressed(file, **_arrays(Contacts(edges, stats)))
        staged.commit()
    return len(edges)


def _load_face(path: Path, axis: int) -> Face:
    with np.load(path) as data:
        rows = data[f"offsets{axis}"].tolist()
        return Face(
            tuple((int(x), int(y), int(z)) for x, y, z in rows), data[f"low{axis}"],
            data[f"high{axis}"], data[f"affinities{axis}"],
        )  # fmt: skip


def _arrays(contacts: Contacts) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"edges": contacts.edges}
    for reach, (pairs, stats) in enumerate(contacts.stats):
        arrays |= {f"pairs{reach}": pairs, f"stats{reach}": stats}
    return arrays


def _path(out: Path, kind: str, index: Triple) -> Path:
    return out / FOLDER / "parts" / f"{index[0]}-{index[1]}-{index[2]}.{kind}.npz"


def join_fragments(out: Path, predictor: Predictor) -> dict[str, Any]:
    """Join the fragments of all blocks into objects; every block has its part.

    Returns:
        How many there are, and the largest one's share.
    """
    folder = out / FOLDER / "parts"
    loaded = [dict(np.load(path)) for path in sorted(folder.glob("*.part.npz"))]
    between = [dict(np.load(path)) for path in sorted(folder.glob("*.between.npz"))]
    names, index = np.unique(np.concatenate([p["voted"] for p in loaded]), return_inverse=True)
    votes = np.zeros((len(names) + 1, loaded[0]["votes"].shape[1]), np.int64)
    np.add.at(votes, index + 1, np.concatenate([p["votes"] for p in loaded]))
    votes[0] = sum(p["background"] for p in loaded)
    contacts = [_numbered(part, names) for part in [*loaded, *between]]
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


def sampled_scale(
    predictor: Predictor, view: FramedImage, voxel_size_nm: tuple[float, float, float], part: Box
) -> BoundaryScale:
    """What a volume's boundaries count as, from some windows spread over a part of it."""
    inference = predictor.inference
    size = [min(w, b - a) for w, (a, b) in zip(inference.window, part, strict=True)]
    tiles = tile_boxes(part, (size[0], size[1], size[2]))
    step = max(1, -(-len(tiles) // SAMPLED))
    contrast = intensity_window(view)
    histograms = []
    for box in tiles[step // 2 :: step]:
        with Scratch(2**31) as scratch:
            evidence = collect_evidence(
                predictor.net, Crop(view, box, contrast), voxel_size_nm, inference,
                predictor.hierarchy, scratch,
            )  # fmt: skip
            histograms.append(_histogram(evidence, voxel_size_nm))
    return boundary_scale(histograms)


def _histogram(evidence: Evidence, voxel_size_nm: tuple[float, float, float]) -> Counts:
    everything = whole_box(evidence.shape)
    foreground = np.asarray(evidence.foreground)
    boundary = boundary_map(*evidence.nearest(everything), foreground, voxel_size_nm)
    return boundary_histogram(boundary, foreground)


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
