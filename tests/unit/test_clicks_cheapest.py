"""The cheapest change that honours all points, on graphs whose answer is known."""

import itertools

import numpy as np
import pytest

from lib.clicks.cheapest import Pieces, _minimum_cut, cheapest, pieces_of
from lib.clicks.ground import UNKNOWN_LOGIT, Ground
from lib.prediction.graph import FragmentGraph
from lib.prediction.objects import Fragments


def chain(objects: list[int], logits: list[float], sizes: list[float] | None = None) -> Pieces:
    """Pieces 1..P in a row, of the given objects."""
    count = len(objects)
    edges = np.stack([np.arange(1, count), np.arange(2, count + 1)], 1)
    return Pieces(
        np.zeros((1, 1, 1), np.uint32),
        np.array([0, *objects]),
        edges,
        np.array(logits),
        np.ones(count - 1) if sizes is None else np.array(sizes),
    )


def chosen(pieces: Pieces, positive: list[int], answer: list[float]) -> list[int]:
    found = cheapest(pieces, 1, np.array(positive), np.array([0.0, *answer]))
    return np.flatnonzero(found).tolist()  # type: ignore[no-any-return]


def test_the_networks_answer_decides_what_contacts_leave_open() -> None:
    pieces = chain([1, 1, 1], [0.5, 0.5])
    assert chosen(pieces, [1], [0.0, 0.0, -3.0]) == [1, 2]
    assert chosen(pieces, [1], [0.0, -3.0, -3.0]) == [1]
    assert chosen(pieces, [1], [0.0, 0.0, 3.0]) == [1, 2, 3]
    assert chosen(pieces, [3], [-9.0, -9.0, -9.0]) == [3], "a point is never denied"


def test_what_no_answer_speaks_of_stays_and_a_small_contact_is_cut_before_a_large_one() -> None:
    assert chosen(chain([1, 1, 1], [-6.0, -6.0]), [2], [0.0, 0.0, 0.0]) == [1, 2, 3]
    pieces = chain([1, 1, 1, 1], [1.0, 1.0, 1.0], [50.0, 2.0, 50.0])
    assert chosen(pieces, [1], [0.0, 0.0, 0.0, -9.0]) == [1, 2]


def test_pieces_of_other_objects_are_out_whatever_is_said_for_them() -> None:
    assert chosen(chain([1, 2, 1], [9.0, 9.0]), [1], [0.0, 9.0, 0.0]) == [1, 3]


@pytest.mark.parametrize("seed", range(12))
def test_the_minimum_cut_equals_trying_everything(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 7
    edges = np.array(list(itertools.combinations(range(count), 2)))
    edges = edges[rng.random(len(edges)) < 0.5]
    costs, inward, outward = (rng.random(n) for n in (len(edges), count, count))
    inward[0], outward[0], inward[6], outward[6] = 1e9, 0.0, 0.0, 1e9

    def price(side: np.ndarray) -> float:
        parted = side[edges[:, 0]] != side[edges[:, 1]]
        return float(costs[parted].sum() + inward[~side].sum() + outward[side].sum())

    sides = [np.array(s) for s in itertools.product([False, True], repeat=count)]
    best = min(price(s) for s in sides)
    assert price(_minimum_cut(edges, costs, inward, outward)) == pytest.approx(best, abs=1e-4)


def test_many_dear_contacts_do_not_overflow_the_solver() -> None:
    count = 6000  # a fan: every piece hangs on both ends by contacts of like cost
    edges = np.concatenate([[[0, k], [k, 1]] for k in range(2, count)])
    costs = np.tile([3.0, 2.0], count - 2)
    inward, outward = np.zeros(count), np.zeros(count)
    inward[0], outward[1] = 1e9, 1e9
    side = _minimum_cut(edges, costs, inward, outward)
    assert side[0] and not side[1] and side[2:].all()


def ground(ids: np.ndarray, logit: float) -> Ground:
    """Fragments 1 and 2 in contact."""
    stats = np.zeros((1, 4, 5))
    stats[0, 0, 0] = 12.0
    graph = FragmentGraph(np.array([[1, 2]]), stats, np.zeros((3, 2), np.int64))
    x, y, z = ids.shape
    fragments = Fragments(ids, graph)
    return Ground(((0, x), (0, y), (0, z)), fragments, np.array([logit]), np.array([0, 1, 1]))


def test_pieces_are_fragments_as_far_as_they_lie_in_one_object() -> None:
    ids = np.zeros((8, 2, 1), np.uint32)
    ids[:4], ids[4:7] = 1, 2
    standing = np.ones(ids.shape, np.uint32)
    standing[2:4] = 2  # somebody cut fragment 1
    wanted = np.ones(ids.shape, bool)
    pieces = pieces_of(ground(ids, -1.5), ((0, 8), (0, 2), (0, 1)), standing, wanted)
    at = pieces.ids[:, 0, 0].tolist()
    assert len(set(at)) == 4 and at[0] == at[1] and at[2] == at[3] and at[4] == at[6] != at[7]
    assert [int(pieces.objects[i]) for i in at] == [1, 1, 2, 2, 1, 1, 1, 1]
    known = {
        tuple(sorted((at.index(a), at.index(b)))): (lo, n)
        for (a, b), lo, n in zip(pieces.edges.tolist(), pieces.logits, pieces.sizes, strict=True)
    }
    assert known[0, 2] == (-UNKNOWN_LOGIT, 1.0)  # one fragment, cut by a person
    assert known[2, 4] == (-1.5, 12.0)  # as the graph says
    assert known[4, 7] == (UNKNOWN_LOGIT, 1.0)  # drawn where there is no fragment


def test_what_is_cut_off_is_a_piece_of_its_own() -> None:
    ids = np.ones((4, 1, 1), np.uint32)
    beyond = np.array([False, False, True, True]).reshape(4, 1, 1)
    whole = np.ones(ids.shape, bool)
    box = ((0, 4), (0, 1), (0, 1))
    pieces = pieces_of(ground(ids, 0.0), box, ids, whole, beyond)
    assert len(np.unique(pieces.ids)) == 2 and len(pieces.edges) == 1
    none = pieces_of(ground(ids, 0.0), box, ids, np.zeros(ids.shape, bool))
    assert not none.ids.any() and len(none.edges) == 0
