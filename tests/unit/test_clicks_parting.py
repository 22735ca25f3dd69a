"""Where objects fall apart between points of both signs, on graphs and masks by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from click_cases import grey_network, source
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lib.clicks.cheapest import Pieces
from lib.clicks.parting import around_points, parted


def chain(logits: list[float]) -> Pieces:
    """Pieces 1..P of one object in a row."""
    count = len(logits) + 2
    edges = np.stack([np.arange(1, count - 1), np.arange(2, count)], 1)
    ones = np.ones(count, np.int64)
    return Pieces(np.zeros((1, 1, 1), np.uint32), ones, edges, np.array(logits), ones[2:] * 1.0)


def held(pieces: Pieces, positive: list[int], negative: list[int]) -> list[int]:
    found = parted(pieces, np.array(positive), np.array(negative, np.int64))
    return [int(v) for v in found[1:]]


def test_an_object_falls_apart_where_it_hangs_together_least() -> None:
    pieces = chain([5.0, 4.0, -2.0, 5.0])
    assert held(pieces, [1], [5]) == [1, 1, 1, 2, 2]
    assert held(pieces, [5], [1]) == [2, 2, 2, 1, 1]
    assert held(pieces, [1], [3, 5]) == [1, 1, 2, 3, 3]
    assert held(pieces, [2], []) == [1, 1, 1, 1, 1]


def test_a_point_on_a_small_piece_keeps_what_hangs_on_it() -> None:
    # a cheapest cut would part 1 from the rest: one contact of 1 against the three of the branch
    pieces = Pieces(
        np.zeros((1, 1, 1), np.uint32), np.ones(7, np.int64),
        np.array([[1, 2], [2, 3], [2, 5], [3, 4], [3, 6], [5, 6]]),
        np.array([1.0, 6.0, 0.5, 6.0, 0.5, 6.0]), np.array([5.0, 80, 80, 80, 80, 80]),
    )  # fmt: skip
    assert held(pieces, [1], [6]) == [1, 1, 1, 1, 2, 2]


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.data())
def test_whatever_is_said_points_keep_their_pieces(
    logits: list[float], data: st.DataObject
) -> None:
    pieces = chain(logits)
    count = len(logits) + 1
    order = data.draw(st.permutations(range(1, count + 1)))
    some = data.draw(st.integers(1, count - 1))
    more = data.draw(st.integers(some + 1, count))
    positive, negative = list(order[:some]), list(order[some:more])
    found = held(pieces, positive, negative)
    assert all(found[p - 1] == 1 for p in positive)
    assert [found[n - 1] for n in negative] == list(range(2, 2 + len(negative)))


def around(piece: NDArray[np.bool_], own: list[list[int]], against: list[list[int]]) -> Any:
    image = np.full(piece.shape, 2, np.float32)
    here = source(image, grey_network())
    x, y, z = piece.shape
    points = [np.array(p, np.int64).reshape(-1, 3) for p in (own, against)]
    return around_points(here, ((0, x), (0, y), (0, z)), piece, *points)


def test_a_click_on_a_long_fragment_takes_what_lies_around_it() -> None:
    piece = np.zeros((32, 32, 8), bool)
    piece[:, 14:19] = True  # five wide, so three deep in its middle
    lost = around(piece, [[1, 16, 4]], [[24, 16, 4]])
    assert lost[24, 16, 4] and not lost[:12].any() and (lost <= piece).all()
    assert lost[21:28, 15:18, 4].all()
    everything = around(piece[:8, :, :], [], [[4, 16, 4]])
    assert (everything == piece[:8]).all(), "all of a short one"


def test_points_for_it_that_lie_nearer_keep_their_side() -> None:
    piece = np.zeros((32, 32, 8), bool)
    piece[:, 14:19] = True
    lost = around(piece, [[18, 16, 4]], [[24, 16, 4]])
    assert not lost[:21].any() and lost[23:26, 16, 4].all()
