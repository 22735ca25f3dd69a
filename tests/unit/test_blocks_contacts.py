"""What blocks say of contacts adds up to what one run over the volume says, wherever it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib.blocks.contacts import Contacts, face_contacts, face_of, numbered
from lib.blocks.fragments import _part, _within
from lib.prediction.evidence import Evidence
from lib.prediction.graph import REACHES, BlockContacts, merge_contacts
from lib.prediction.grouping import count_contacts
from lib.volumes.boxes import Box, Triple, whole_box

SHAPE: Triple = (13, 11, 9)
VOXEL = (8.0, 8.0, 8.0)
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, 4, 0), (0, 0, 5))


def volume(seed: int, fragments: int = 12) -> tuple[np.ndarray, Evidence]:
    """Random fragments, every voxel on its own, some of none, and random affinities."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, fragments, SHAPE).astype(np.uint64)
    affinities = rng.uniform(-1, 1, (len(OFFSETS), *SHAPE)).astype(np.float16)
    classes = rng.integers(1, 13, SHAPE).astype(np.uint8)
    return ids, Evidence(affinities, OFFSETS, classes, ids > 0, 13)


def as_block(found: Contacts) -> BlockContacts:
    return BlockContacts(found.edges, found.stats)


def halves(axis: int, at: int) -> tuple[Box, Box]:
    spans = list(whole_box(SHAPE))
    low, high = list(spans), list(spans)
    low[axis], high[axis] = (0, at), (at, SHAPE[axis])
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("at", [1, 4, 7])
def test_two_blocks_and_their_face_are_the_whole(axis: int, at: int) -> None:
    """Also where a block is thinner than the longest pair, as long as its neighbour is not cut."""
    ids, evidence = volume(axis * 10 + at)
    values = np.unique(ids)
    votes = np.ones((len(values), 13), np.int64)
    whole = count_contacts(evidence, ids.astype(np.uint32), whole_box(SHAPE), VOXEL)
    tile = list(SHAPE)
    parts = []
    for box in halves(axis, at):
        x, y, z = (slice(a, b) for a, b in box)
        parts.append(_part(ids[x, y, z], _within(evidence, box), VOXEL, tile))
    between = face_contacts(parts[0].faces[axis], parts[1].faces[axis], axis, VOXEL)
    blocks = [as_block(p.contacts) for p in parts] + [as_block(between)]
    found, expected = merge_contacts(blocks, votes), merge_contacts([whole], votes)
    np.testing.assert_array_equal(found.edges, expected.edges)
    np.testing.assert_allclose(found.stats, expected.stats, rtol=1e-9, atol=1e-9)
    assert sum(int(p.votes.sum() + p.background.sum()) for p in parts) == ids.size


def test_contacts_go_by_the_fragments_ids_in_the_volume() -> None:
    ids = np.array([7, 0, 2**40, 7], np.uint64).reshape(4, 1, 1)
    local, names = numbered(ids)
    assert local.dtype == np.uint32 and local.max() == 2 and (local == 0).sum() == 1
    np.testing.assert_array_equal(names[local], ids)
    alone, names = numbered(np.full((2, 1, 1), 5, np.uint64))
    np.testing.assert_array_equal(names[alone], 5)


def test_a_face_without_pairs_along_its_axis_has_no_contacts() -> None:
    ids, evidence = volume(0)
    flat = Evidence(evidence.affinities[:2], OFFSETS[:2], evidence.classes, evidence.foreground, 13)
    faces: list[Any] = [face_of(ids, flat, 2) for _ in range(2)]
    assert faces[0].offsets == () and faces[0].low.shape == (13, 11, 0)
    found = face_contacts(faces[0], faces[1], 2, VOXEL)
    assert len(found.edges) == 0 and len(found.stats) == len(REACHES)
    assert all(len(pairs) == 0 and values.shape == (0, 5) for pairs, values in found.stats)
