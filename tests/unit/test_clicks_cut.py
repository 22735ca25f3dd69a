"""Where a fragment with points of both signs is cut."""

import numpy as np
from click_cases import grey_network, source

from lib.clicks.evidence import boundary_in
from lib.clicks.fragments import Evidence, claims_of, join_fragments
from lib.clicks.growth import Canvas
from lib.clicks.masks import CONTRAST, Terrain, _steps_across, clicked_object
from lib.volumes.boxes import box_shape, box_slices

SHAPE = (12, 5, 3)
BOX = ((0, 32), (0, 32), (0, 8))


def cut(terrain: Terrain) -> list[int]:
    """What stays of the middle line of a bar between a positive and a negative point."""
    positive, negative = np.array([[1, 2, 1]]), np.array([[10, 2, 1]])
    mask, parts = clicked_object(np.ones(SHAPE, np.float32), positive, negative, terrain)
    assert parts == 1
    kept: list[int] = np.flatnonzero(mask[:, 2, 1]).tolist()
    return kept


def nothing() -> np.ndarray:
    return np.zeros(SHAPE, np.float32)


def test_without_evidence_a_cut_is_half_way() -> None:
    assert cut(Terrain(nothing(), nothing())) == [0, 1, 2, 3, 4, 5]


def test_a_cut_follows_the_boundary_wherever_it_is() -> None:
    for ridge in (3, 8):
        boundary = nothing()
        boundary[ridge] = 1.0
        kept = cut(Terrain(nothing(), boundary))
        assert kept in (list(range(ridge)), list(range(ridge + 1)))


def test_a_cut_leans_to_what_the_network_says() -> None:
    logits = nothing()
    logits[:9], logits[9:] = 6.0, -6.0
    assert cut(Terrain(logits, nothing())) == list(range(7))
    assert cut(Terrain(-logits, nothing())) == list(range(5))


def test_steps_cost_by_hand() -> None:
    logits = np.array([40.0, 0.0, -40.0], np.float32).reshape(3, 1, 1)
    boundary = np.array([0.0, 0.0, 0.5], np.float32).reshape(3, 1, 1)
    mine, theirs = _steps_across(Terrain(logits, boundary), np.array([[2, 0, 0]]))
    assert CONTRAST == 2.0
    np.testing.assert_allclose(mine.ravel(), [1.0, 1.5, 2.0 * 13.5], rtol=1e-3)
    np.testing.assert_allclose(theirs.ravel(), [2.0, 1.5, 13.5], rtol=1e-3)


def test_boundaries_of_a_window_lie_between_its_objects() -> None:
    image = np.full(box_shape(BOX), 2, np.float32)
    image[20:] = 5
    here = source(image, grey_network())
    expected = np.zeros(image.shape, np.float32)
    expected[19:21] = 1.0
    window = here.features(BOX)
    np.testing.assert_array_equal(boundary_in(window, BOX, 1.0), expected)
    part = ((18, 25), (3, 9), (2, 3))
    np.testing.assert_array_equal(boundary_in(window, part, 1.0), expected[18:25, 3:9, 2:3])
    canvas = Canvas(here, {BOX: np.zeros(image.shape, np.float32)})
    wider = ((16, 40), (0, 8), (0, 8))
    seen = canvas.boundary(wider)
    np.testing.assert_array_equal(seen[:16], expected[16:, :8])
    assert not seen[16:].any(), "what no window saw"


def test_a_fragment_is_cut_where_the_embedding_says_that_objects_end() -> None:
    positive, negative = np.array([[1, 2, 1]]), np.array([[10, 2, 1]])
    box = ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2]))
    ridge = nothing()
    ridge[8] = 1.0
    evidence = Evidence(
        mask=np.zeros(SHAPE, bool),
        logits=nothing(),  # the mask head has no opinion
        box=box,
        groups=lambda places: np.zeros(len(places), np.int64),
        boundary=lambda part: ridge[box_slices(part)],
    )
    claims = claims_of(np.full(SHAPE, 7, np.uint32), positive, negative)
    mask, found, parts, limited = join_fragments(
        claims, evidence, box, positive, negative, (8.0, 8.0, 8.0)
    )
    assert found == box and parts == 1 and not limited
    assert mask[:8].all() and not mask[9:].any()
