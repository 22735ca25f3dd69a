"""What a submission of a region does to objects that go on beyond it."""

from pathlib import Path

import numpy as np

from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.log import EditLog
from lib.proofread.machine import MachineObjects
from lib.proofread.submitted import _going_on

REGION = ((0, 10), (0, 12), (0, 4))


def standing(tmp_path: Path) -> CurrentObjects:
    """Object 5 crosses the region's end at 10; 7 lies beyond it."""
    ids = np.zeros((20, 12, 4), np.uint32)
    ids[2:16, 2:6] = 5
    ids[12:18, 8:11] = 7
    return CurrentObjects(EditLog(tmp_path, "cell"), ids.shape, MachineObjects(ids, "one"))


def whole(placed: Placed) -> np.ndarray:
    out = np.zeros((20, 12, 4), bool)
    out[tuple(slice(a, b) for a, b in placed.box)] = placed.mask
    return out


def test_an_object_keeps_what_stands_of_it_beyond_the_region(tmp_path: Path) -> None:
    drawn = np.ones((6, 5, 4), bool)  # corrected within the region, up to its end
    found = whole(
        _going_on(standing(tmp_path), 5, Placed(drawn, ((4, 10), (2, 7), (0, 4))), REGION)
    )
    expected = np.zeros(found.shape, bool)
    expected[4:10, 2:7] = True
    expected[10:16, 2:6] = True
    assert np.array_equal(found, expected)


def test_what_no_longer_touches_it_does_not_come_along(tmp_path: Path) -> None:
    drawn = np.ones((4, 4, 4), bool)  # ends before the region does
    placed = Placed(drawn, ((2, 6), (2, 6), (0, 4)))
    assert np.array_equal(whole(_going_on(standing(tmp_path), 5, placed, REGION)), whole(placed))


def test_a_new_object_is_as_it_was_drawn(tmp_path: Path) -> None:
    placed = Placed(np.ones((2, 2, 4), bool), ((6, 8), (9, 11), (0, 4)))
    assert np.array_equal(whole(_going_on(standing(tmp_path), 9, placed, REGION)), whole(placed))


def test_an_accepted_object_keeps_all_that_it_has_beyond_the_region(tmp_path: Path) -> None:
    objects = standing(tmp_path)
    ids = objects.read(((0, 20), (0, 12), (0, 4)))
    objects.accept(Placed(ids == 5, ((0, 20), (0, 12), (0, 4))), 5, "axon 5")
    placed = Placed(np.ones((2, 2, 4), bool), ((6, 8), (9, 11), (0, 4)))  # apart from the rest
    expected = whole(placed) | (ids == 5) & (np.arange(20) >= 10)[:, None, None]
    assert np.array_equal(whole(_going_on(objects, 5, placed, REGION)), expected)
