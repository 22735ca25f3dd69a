"""What a correction means: its changes, what is seen of them, and what is made of an answer."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest
from click_cases import grey_network
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lib.clicks.changes import KINDS, Answer, Change, Correction, changes_of, regions
from lib.clicks.cheapest import Pieces
from lib.clicks.meaning import FEATURES, PLAIN, Meaning, corrected, meaning_of, seen_of
from lib.clicks.scale import Depth
from lib.prediction.perceptron import Perceptron

CUBE = (8.0, 8.0, 8.0)


def row(logits: list[float], objects: list[int], width: int = 10) -> Pieces:
    """Pieces 1..P side by side along x, each `width` long and 9 x 9 across."""
    count = len(objects)
    ids = np.repeat(np.arange(1, count + 1, dtype=np.uint32), width)
    ids = np.ascontiguousarray(np.broadcast_to(ids[:, None, None], (count * width, 9, 9)))
    edges = np.stack([np.arange(1, count), np.arange(2, count + 1)], 1)
    return Pieces(ids, np.array([0, *objects]), edges, np.array(logits), np.full(count - 1, 81.0))


def answer_of(pieces: Pieces, base: int = 1) -> Answer:
    return Answer(pieces, base, pieces.objects == base)


def points(*at: tuple[int, int, int]) -> NDArray[np.int64]:
    return np.array(at, np.int64).reshape(-1, 3)


def most(answer: Answer, correction: Correction, changes: Any) -> int:
    return len(changes) - 1


def least(answer: Answer, correction: Correction, changes: Any) -> int:
    return 0


def test_regions_grow_by_the_firmest_contact_that_leads_on() -> None:
    pieces = row([5.0, 3.0, 1.0, 4.0], [1] * 5)
    zone = np.array([False] + [True] * 5)
    found = regions(pieces, zone, 2, np.ones(6))
    assert [np.flatnonzero(c.pieces).tolist() for c in found] == [
        [2], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5],
    ]  # fmt: skip
    assert [(c.level, c.next) for c in found] == [(8.0, 5.0), (5.0, 3.0), (3.0, 1.0), (1.0, -8.0)]
    zone[4] = False
    ends = regions(pieces, zone, 5, np.ones(6))
    assert [np.flatnonzero(c.pieces).tolist() for c in ends] == [[5]], "nothing leads there"


def test_a_region_that_is_hardly_larger_is_not_considered_unless_it_is_all() -> None:
    pieces = row([5.0, 3.0, 1.0], [1] * 4)
    zone = np.array([False] + [True] * 4)
    sizes = np.array([0.0, 1000.0, 10.0, 10.0, 10.0])
    found = regions(pieces, zone, 1, sizes)
    assert [np.flatnonzero(c.pieces).tolist() for c in found] == [[1], [1, 2, 3, 4]]


@given(st.data())
def test_regions_of_any_graph_are_what_single_linkage_gives(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 9))
    pairs = [(a, b) for a in range(1, count + 1) for b in range(a + 1, count + 1)]
    edges = data.draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True))
    # logits all differ, so that levels say which contacts are within
    order = data.draw(st.permutations(range(len(edges))))
    logits = np.array([4.0 - 0.2 * o for o in order])
    zone = np.array([False, *data.draw(st.lists(st.booleans(), min_size=count, max_size=count))])
    piece = data.draw(st.integers(1, count))
    zone[piece] = True
    ids = np.arange(count + 1, dtype=np.uint32).reshape(-1, 1, 1)
    pieces = Pieces(ids, np.ones(count + 1, np.int64), np.array(edges), logits, np.ones(len(edges)))
    found = regions(pieces, zone, piece, np.ones(count + 1))
    for change in found:
        assert change.pieces is not None and change.pieces[piece]
        assert not (change.pieces & ~zone).any()
        reached = {piece}
        while True:  # all that contacts of at least this level lead to
            more = {
                n
                for (a, b), logit in zip(edges, logits, strict=True)
                for m, n in ((a, b), (b, a))
                if m in reached and zone[n] and logit >= change.level - 1e-9
            }
            if more <= reached:
                break
            reached |= more
        assert set(np.flatnonzero(change.pieces).tolist()) == reached
    for inner, outer in itertools.pairwise(found):
        assert (inner.pieces <= outer.pieces).all()
        assert inner.pieces.sum() < outer.pieces.sum()


def test_a_point_may_mean_a_ball_a_part_of_its_fragment_or_a_region() -> None:
    pieces = row([5.0, -3.0, 5.0], [1, 1, 2, 2])
    answer = answer_of(pieces)
    correction = Correction((32, 4, 4), True, Depth(4, 5), Depth(4, 5), 1, np.zeros(0, np.int64))
    found = changes_of(answer, correction, CUBE)
    assert [KINDS[c.kind] for c in found] == ["ball", "part", "region", "region"]
    ball, part = (c.mask(pieces.ids) for c in found[:2])
    assert ball[32, 4, 4] and ball[28, 4, 4] and not ball[26].any(), "a voxel beyond the border"
    assert part[34:40, 4, 4].all() and not part[:30].any(), "only its own fragment"
    assert [np.flatnonzero(c.pieces).tolist() for c in found[2:]] == [[4], [3, 4]]


def test_regions_end_at_points_of_the_other_sign() -> None:
    pieces = row([5.0, 3.0, 5.0, 4.0], [1] * 5)
    answer = answer_of(pieces)
    denied = corrected(answer, points((2, 4, 4)), points((45, 4, 4)), CUBE, most)
    assert denied[:20].all() and not denied[20:].any(), "where it hangs together least"
    both = corrected(
        answer_of(pieces), points((2, 4, 4), (15, 4, 4)), points((45, 4, 4)), CUBE, most
    )
    assert both[:20].all(), "a point for what is the answer already changes nothing"
    same = corrected(answer_of(pieces), points((2, 4, 4)), points((7, 4, 4)), CUBE, most)
    assert same[10:].all() and not same[7, 4, 4], "of its own fragment at most"


def test_points_for_the_object_come_first_and_each_is_counted() -> None:
    pieces = row([5.0, -3.0, 5.0, -3.0], [1, 1, 2, 2, 3])
    seen = []

    def choose(answer: Answer, correction: Correction, changes: Any) -> int:
        seen.append((correction.point[0], correction.adds, correction.nth, answer.mask.sum() // 81))
        return most(answer, correction, changes)

    mask = corrected(
        answer_of(pieces), points((5, 4, 4), (25, 4, 4), (45, 4, 4)), points((15, 4, 4)), CUBE,
        choose,
    )  # fmt: skip
    assert seen == [(25, True, 1, 20), (45, True, 2, 40), (15, False, 1, 50)]
    assert mask[:10].all() and not mask[10:20].any() and mask[20:].all()


def test_a_point_for_what_one_against_it_took_too_much_of_comes_after_it() -> None:
    pieces = row([5.0, 3.0, 5.0, 4.0], [1] * 5)
    seen = []

    def choose(answer: Answer, correction: Correction, changes: Any) -> int:
        seen.append((correction.point[0], correction.adds, correction.opposed.tolist()))
        return len(changes) - 1

    # 4 and 5 are meant to go; what is taken first reaches to 3 as well
    mask = corrected(
        answer_of(pieces), points((2, 4, 4), (25, 4, 4)), points((45, 4, 4)), CUBE, choose
    )
    assert seen == [(45, False, [1]), (25, True, [5])], "it was the answer, so it opposes nothing"
    assert mask[:40].all() and not mask[40:].any(), "up to where it holds to the point against it"


def test_without_a_fitted_model_the_middle_means_all_and_the_border_a_ball() -> None:
    pieces = row([5.0, -3.0, 5.0], [1, 1, 2, 2])
    middle = corrected(
        answer_of(pieces), points((5, 4, 4), (30, 4, 4)), points(), CUBE, PLAIN.choose
    )
    assert middle.all()
    border = corrected(
        answer_of(pieces), points((5, 4, 4), (21, 4, 4)), points(), CUBE, PLAIN.choose
    )
    assert border[21, 4, 4] and not border[25:].any()


def test_what_is_seen_of_changes_by_hand() -> None:
    pieces = row([5.0, -3.0, 2.0], [1, 1, 2, 2])
    answer = answer_of(pieces)
    correction = Correction((25, 4, 4), True, Depth(5, 10), Depth(4, 5), 2, np.zeros(0, np.int64))
    inner = np.array([False, False, False, True, False])
    half = np.zeros(pieces.ids.shape, bool)
    half[15:25] = True  # half of it is the answer already
    changes = [Change(2, inner, None, 8.0, 2.0), Change(0, voxels=half)]
    region, voxels = seen_of(answer, correction, changes)
    assert len(region) == FEATURES
    assert np.array_equal(region[: FEATURES // 2], region[FEATURES // 2 :]), "it adds"
    assert region[:3].tolist() == [1.0, 0.0, 0.0] and voxels[:3].tolist() == [1.0, 1.0, 0.0]
    expected = [np.log1p(810), np.log(810 / 1620), 1.0, np.log(810 / 1620)]
    assert region[3:7] == pytest.approx(expected)
    assert voxels[3:7] == pytest.approx(
        [np.log1p(405), np.log(405 / 1620), 0.5, np.log(405 / 1620)]
    )
    assert region[7] == pytest.approx(np.log1p(810) / 3 - np.log1p(5))
    # the answer at -3, the rest of its own object at 2, 81 pairs each
    assert region[8:14] == pytest.approx([-3, -3, np.log1p(81), 2, 2, np.log1p(81)])
    assert region[14:17].tolist() == [8.0, 2.0, 0.5]
    assert region[17:22] == pytest.approx([5, np.log1p(5), 0.5, np.log1p(4), 0.8])
    assert region[22:26] == pytest.approx([0, 2, np.log(1620), 0])
    against = Correction((25, 4, 4), False, Depth(5, 10), Depth(4, 5), 1, np.zeros(0, np.int64))
    assert not seen_of(answer, against, changes)[:, FEATURES // 2 :].any()


def test_what_a_correction_has_changed_is_seen_by_the_next() -> None:
    pieces = row([5.0, 5.0, 5.0], [1] * 4)
    answer = answer_of(pieces)
    some = np.array([False, False, True, True, False])
    answer.take(Change(2, some), adds=False)
    assert not answer.mask[10:30].any() and answer.told.tolist() == some.tolist()
    at = Correction((25, 4, 4), True, Depth(5, 5), Depth(5, 5), 1, np.zeros(0, np.int64))
    half = np.zeros(pieces.ids.shape, bool)
    half[25:35] = True
    all_of_it = Change(2, np.array([False, True, True, True, True]))
    seen = seen_of(answer, at, [all_of_it, Change(0, voxels=half)])
    assert seen[:, 25].tolist() == [1.0, 1.0], "what moves had been taken"
    answer.take(Change(2, np.array([False, True, False, False, False])), adds=True)
    assert not answer.told[1], "it was there already"
    assert not answer_of(pieces).told.any()


def weighing(column: int, weight: float = 1.0) -> Meaning:
    layer = np.zeros((1, FEATURES), np.float32)
    layer[0, column] = weight
    still = np.zeros(FEATURES, np.float32)
    return Meaning(Perceptron(((layer, np.zeros(1, np.float32)),), still, still + 1))


def test_a_fitted_model_decides_and_survives_a_file() -> None:
    pieces = row([5.0, -3.0, 5.0], [1, 1, 2, 2])
    net = grey_network()
    for meaning, size in ((weighing(3), 20), (weighing(3, -1.0), 0)):
        net.meaning = meaning.to_dict()
        choose = meaning_of(net).choose
        mask = corrected(answer_of(pieces), points((5, 4, 4), (30, 4, 4)), points(), CUBE, choose)
        assert mask[20:40].all() == (size == 20)
        assert mask[30, 4, 4]
    net.meaning = None
    assert meaning_of(net) is PLAIN


def test_a_model_of_another_version_is_told(caplog: Any) -> None:
    net = grey_network()
    still = np.zeros(3, np.float32)
    other = Perceptron(((np.zeros((1, 3), np.float32), np.zeros(1, np.float32)),), still, still + 1)
    net.meaning = Meaning(other).to_dict()
    with caplog.at_level(logging.WARNING):
        assert meaning_of(net) is PLAIN
    assert "3 features" in caplog.text and "fit_clicks.py" in caplog.text


def test_what_is_known_of_weights_holds_it() -> None:
    net, other = grey_network(), grey_network()
    net.meaning = weighing(2).to_dict()
    other.take_fitted(net.fitted)
    assert other.meaning == net.meaning


@pytest.mark.parametrize("choose", [most, least])
def test_no_piece_means_the_voxels_around(choose: Any) -> None:
    pieces = row([5.0], [1, 1])
    pieces.ids[10:] = 0  # nothing was found there
    mask = corrected(answer_of(pieces), points((5, 4, 4), (14, 4, 4)), points(), CUBE, choose)
    assert mask[14, 4, 4] and mask[19, 4, 4] and not mask[19, 0, 0], "up to the answer and one more"
