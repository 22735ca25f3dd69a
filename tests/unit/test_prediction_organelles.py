"""Organelles and the cells that they lie in."""

import numpy as np

from lib.labels.hierarchy import load_hierarchy
from lib.prediction.classes import FINE_VALUE
from lib.prediction.organelles import find_organelles

HIERARCHY = load_hierarchy()
AXON, NUCLEUS, MITOCHONDRIA = (
    HIERARCHY.class_names.index(n) + FINE_VALUE for n in ("axon", "nucleus", "mitochondria")
)


def test_each_connected_piece_of_a_class_has_the_cell_that_holds_most_of_it() -> None:
    classes = np.full((12, 6, 2), AXON, np.uint8)
    cells = np.ones(classes.shape, np.uint32)
    cells[6:] = 9
    cells[:, 5] = 0
    classes[1:3, 1:3] = MITOCHONDRIA
    classes[3:5, 1:3] = NUCLEUS  # touches it, and is another
    classes[5:8, 4:] = MITOCHONDRIA  # in both cells, and in none
    classes[10, 0, 0] = MITOCHONDRIA  # a crumb
    found = find_organelles(classes, cells, HIERARCHY, 2)
    assert found.count == 3
    by_place = {found.ids[1, 1, 0]: (MITOCHONDRIA, 1, 8), found.ids[3, 1, 0]: (NUCLEUS, 1, 8)}
    by_place[found.ids[7, 4, 0]] = (MITOCHONDRIA, 0, 12)
    for number, (class_value, cell, size) in by_place.items():
        assert number > 0
        assert found.classes[number] == class_value and found.sizes[number] == size
        assert found.cells[number] == cell
    assert found.ids[10, 0, 0] == 0 and found.cells[0] == found.classes[0] == found.sizes[0] == 0


def test_an_image_without_organelles_has_none() -> None:
    classes = np.full((4, 4, 1), AXON, np.uint8)
    found = find_organelles(classes, np.ones(classes.shape, np.uint32), HIERARCHY, 1)
    assert found.count == 0 and not found.ids.any() and len(found.classes) == 1
