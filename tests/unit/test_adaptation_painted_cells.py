"""Marked cells are no mitochondria where some were painted in them in the same section."""

from __future__ import annotations

import numpy as np
from adaptation_cases import AXON, HIERARCHY, UNKNOWN
from hypothesis import given
from hypothesis import strategies as st

from lib.adaptation.painted_cells import without_painted_kinds
from lib.data.items import Labels

MITOCHONDRIA, NUCLEUS = (1 << HIERARCHY.class_names.index(n) for n in ("mitochondria", "nucleus"))
CELL = HIERARCHY.object_set
"""Of an object of unknown class."""


def labels_of(sets: np.ndarray, ids: np.ndarray) -> Labels:
    palette, codes = np.unique(sets, return_inverse=True)
    return Labels(
        codes.reshape(sets.shape).astype(np.uint8), palette.astype(np.int32), ids.astype(np.int32)
    )


def sets_of(labels: Labels) -> np.ndarray:
    return labels.palette[labels.codes]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two sections; cell 1 on the left, cell 2 on the right, a mitochondrion in cell 1 of one."""
    sets = np.full((12, 8, 2), CELL)
    ids = np.ones((12, 8, 2), int)
    ids[6:] = 2
    sets[2:4, 3:5, 0], ids[2:4, 3:5, 0] = MITOCHONDRIA, -1
    return sets, ids


def test_all_marked_cells_of_that_section_and_no_other() -> None:
    sets, ids = scene()
    sets[10:, :, 0], ids[10:, :, 0] = UNKNOWN, -1
    found = sets_of(without_painted_kinds(labels_of(sets, ids), HIERARCHY))
    expected = sets.copy()
    expected[..., 0][sets[..., 0] == CELL] = CELL & ~MITOCHONDRIA
    np.testing.assert_array_equal(found, expected)


def test_labels_without_organelles_in_cells_are_the_same() -> None:
    sets, ids = scene()
    sets[2:4, 3:5, 0] = CELL
    labels = labels_of(sets, ids)
    assert without_painted_kinds(labels, HIERARCHY).codes is labels.codes


def test_organelles_among_unmarked_tissue_say_nothing() -> None:
    sets, ids = scene()
    ids[...] = -1
    sets[sets == CELL] = UNKNOWN
    found = without_painted_kinds(labels_of(sets, ids), HIERARCHY)
    np.testing.assert_array_equal(sets_of(found), sets)


def test_an_organelle_between_cells_is_in_none() -> None:
    """A third of its rim is one cell's, a third the other's, a third nobody's."""
    sets = np.full((9, 9, 1), UNKNOWN)
    ids = np.full((9, 9, 1), -1)
    sets[:4], ids[:4] = CELL, 1
    sets[5:], ids[5:] = CELL, 2
    sets[4, 2:7] = MITOCHONDRIA  # 5 voxels of each cell beside it, 2 of nobody: 5 of 12
    found = without_painted_kinds(labels_of(sets, ids), HIERARCHY)
    np.testing.assert_array_equal(sets_of(found), sets)


def test_each_kind_says_of_itself_alone_and_both_add_up() -> None:
    sets, ids = scene()
    sets[2:4, 6, 0], ids[2:4, 6, 0] = NUCLEUS, -1
    found = sets_of(without_painted_kinds(labels_of(sets, ids), HIERARCHY))
    assert found[0, 0, 0] == CELL & ~MITOCHONDRIA & ~NUCLEUS
    assert found[0, 0, 1] == CELL
    assert found[2, 3, 0] == MITOCHONDRIA
    assert found[2, 6, 0] == NUCLEUS


def test_a_cell_of_known_class_stays_as_it_is() -> None:
    sets, ids = scene()
    sets[sets == CELL] = 1 << AXON
    found = without_painted_kinds(labels_of(sets, ids), HIERARCHY)
    np.testing.assert_array_equal(sets_of(found), sets)


@given(st.integers(0, 2**32 - 1))
def test_sets_only_lose_painted_organelles_and_never_all(seed: int) -> None:
    draw = np.random.default_rng(seed)
    kinds = np.array([UNKNOWN, CELL, 1 << AXON, MITOCHONDRIA, NUCLEUS])
    sets = kinds[draw.integers(0, 5, (6, 5, 3))]
    ids = draw.integers(-1, 3, sets.shape)
    found = sets_of(without_painted_kinds(labels_of(sets, ids), HIERARCHY))
    assert (found != 0).all()
    lost = sets & ~found
    assert ((found & ~sets) == 0).all()
    for kind in (MITOCHONDRIA, NUCLEUS):
        where = (lost & kind) != 0
        assert (ids[where] > 0).all()
        for z in range(3):
            assert not where[..., z].any() or (sets[..., z] == kind).any()
    assert ((lost & ~(MITOCHONDRIA | NUCLEUS)) == 0).all()
