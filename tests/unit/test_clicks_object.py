"""The clicked object on constructed cases, where the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from click_cases import grey_network, source, whole

from lib.clicks.answer import segment_clicked
from lib.clicks.reach import MOST_WINDOWS
from lib.clicks.source import Clicks
from lib.clicks.starting import StartingMask

PROMPT = pytest.mark.parametrize("prompt", [0.0, 1.0], ids=["distance", "mask head"])


def two_blocks() -> np.ndarray:
    """Two objects that touch (levels 2 and 5), a far one that looks like the first."""
    image = np.zeros((32, 32, 8), np.float32)
    image[4:14, 4:12, 1:7] = 2
    image[14:24, 4:12, 1:7] = 5
    image[4:14, 20:28, 1:7] = 2
    return image


@PROMPT
def test_one_click_gives_the_connected_object(prompt: float) -> None:
    image = two_blocks()
    answer = segment_clicked(source(image, grey_network(prompt)), Clicks([(6, 6, 3)]))
    wanted = np.zeros_like(image, bool)
    wanted[4:14, 4:12, 1:7] = True
    assert np.array_equal(whole(answer, image), wanted)
    assert answer.warnings == ()


@PROMPT
def test_two_positive_points_merge_two_fragments(prompt: float) -> None:
    image = two_blocks()
    clicks = Clicks([(6, 6, 3), (20, 8, 3)])
    answer = segment_clicked(source(image, grey_network(prompt)), clicks)
    wanted = np.zeros_like(image, bool)
    wanted[4:24, 4:12, 1:7] = True
    assert np.array_equal(whole(answer, image), wanted)
    apart = segment_clicked(source(image, grey_network(prompt)), Clicks([(6, 6, 3), (6, 24, 3)]))
    assert whole(apart, image).sum() == 2 * 480
    assert apart.warnings == (
        "the positive points lie in 2 parts that do not touch; all are in the answer",
    )


@PROMPT
def test_a_negative_point_splits_one_fragment_at_its_neck(prompt: float) -> None:
    image = np.zeros((32, 32, 8), np.float32)
    image[2:14, 4:20, 1:7] = 3
    image[14:16, 11:13, 3:5] = 3  # a narrow bridge between two wrongly merged objects
    image[16:28, 4:20, 1:7] = 3
    merged = segment_clicked(source(image, grey_network(prompt)), Clicks([(6, 6, 3)]))
    assert whole(merged, image)[20, 10, 3]
    split = segment_clicked(
        source(image, grey_network(prompt)), Clicks([(6, 12, 3)], [(23, 12, 3)])
    )
    mask = whole(split, image)
    assert mask[2:14, 4:20, 1:7].all() and not mask[17:].any()


def test_a_negative_point_in_another_object_changes_nothing() -> None:
    image = two_blocks()
    one = segment_clicked(source(image), Clicks([(6, 6, 3)]))
    two = segment_clicked(source(image), Clicks([(6, 6, 3)], [(20, 8, 3), (0, 0, 0)]))
    assert np.array_equal(whole(one, image), whole(two, image))


def test_every_click_list_has_one_answer_whatever_came_before() -> None:
    image = np.zeros((64, 64, 8), np.float32)
    image[2:62, 20:28, 2:6] = 2
    image[30:38, 2:60, 2:6] = 5
    lists = [
        Clicks([(5, 22, 3)]),
        Clicks([(5, 22, 3)], [(60, 24, 3)]),
        Clicks([(33, 50, 3)]),
        Clicks([(5, 22, 3), (33, 50, 3)]),
    ]
    fresh = [whole(segment_clicked(source(image), c), image) for c in lists]
    shared = source(image)
    for i in (3, 0, 2, 1, 0, 3, 1, 2):
        assert np.array_equal(whole(segment_clicked(shared, lists[i]), image), fresh[i])


def test_windows_grow_with_the_object_up_to_the_limit_and_are_computed_once() -> None:
    image = np.zeros((160, 40, 8), np.float32)
    image[2:158, 10:16, 2:6] = 2
    net = grey_network()
    near = source(image, net, limit=(160, 40, 8))
    answer = segment_clicked(near, Clicks([(10, 12, 3)]))
    assert np.array_equal(whole(answer, image), image == 2)
    assert 1 < answer.windows <= 1 + MOST_WINDOWS and net.backbone.calls == answer.windows
    segment_clicked(near, Clicks([(10, 12, 3)], [(80, 30, 3)]))
    assert net.backbone.calls == answer.windows  # a further click runs no backbone
    limited = segment_clicked(source(image, limit=(64, 40, 8)), Clicks([(10, 12, 3)]))
    assert limited.warnings == ("the object goes on beyond the limit of the click window",)
    assert whole(limited, image)[2:40, 12, 3].all() and not whole(limited, image)[120:].any()


def test_an_answer_that_leaks_stops_after_some_windows() -> None:
    image = np.full((300, 300, 4), 2, np.float32)
    clicked = source(image, window=(32, 32, 4), limit=(300, 300, 4))
    answer = segment_clicked(clicked, Clicks([(150, 150, 2)]))
    assert answer.windows == 1 + MOST_WINDOWS
    assert answer.warnings == ("the object goes on beyond the limit of the click window",)


def test_contradicting_and_stray_points_give_an_answer_and_a_warning() -> None:
    image = two_blocks()
    both = segment_clicked(source(image), Clicks([(6, 6, 3)], [(6, 6, 3)]))
    assert whole(both, image).sum() == 480
    assert "lie on a positive one" in both.warnings[0]
    stray = segment_clicked(source(image), Clicks([(6, 6, 3), (500, 0, 0)], [(6, -2, 3)]))
    assert whole(stray, image).sum() == 480
    assert stray.warnings == (
        "1 positive point(s) outside the image were left out",
        "negative point(s) just outside the image were moved onto its border",
    )
    for clicks in (Clicks([]), Clicks([], [(6, 6, 3)]), Clicks([(99, 99, 99)])):
        nothing = segment_clicked(source(image), clicks)
        assert not nothing.mask.any() and "no positive point" in nothing.warnings[-1]


def test_a_click_where_nothing_is_known_still_marks_its_voxel() -> None:
    image = two_blocks()
    bare = source(image)
    nothing = bare.inference.model_copy(update={"object_threshold": 1.0})  # can be an object
    answer = segment_clicked(replace(bare, inference=nothing), Clicks([(6, 6, 3)], [(20, 8, 3)]))
    assert whole(answer, image)[6, 6, 3] and whole(answer, image).sum() == 7


def test_an_edited_mask_is_kept_where_no_click_contradicts_it() -> None:
    image = two_blocks()
    edited = image == 2
    edited[:, 16:] = False
    edited[4:8, 4:6] = False  # the annotator cut a corner away
    edited[26:30, 26:30, 2:4] = True  # and painted something of their own
    start = StartingMask(edited, ((0, 32), (0, 32), (0, 8)))
    same = segment_clicked(source(image), Clicks([(10, 8, 3)]), start)
    assert np.array_equal(whole(same, image), edited)
    more = segment_clicked(source(image), Clicks([(10, 8, 3), (20, 8, 3)]), start)
    assert np.array_equal(whole(more, image), edited | (image == 5))
    less = segment_clicked(source(image), Clicks([(10, 8, 3)], [(27, 27, 3)]), start)
    assert np.array_equal(whole(less, image), edited & (np.arange(32)[:, None, None] < 26))
    only_negative = segment_clicked(source(image), Clicks([], [(27, 27, 3)]), start)
    assert not whole(only_negative, image)[26:].any()
    assert np.array_equal(whole(only_negative, image)[:24], edited[:24])
    flat = segment_clicked(source(image), Clicks([], [(27, 27, 3)]), start, section=3)
    assert not whole(flat, image)[26:, :, 3].any() and whole(flat, image)[28, 28, 2]


def test_one_section_only() -> None:
    image = two_blocks()
    clicks = Clicks([(6, 6, 3), (20, 8, 5)])
    answer = segment_clicked(source(image), clicks, section=3)
    wanted = np.zeros_like(image, bool)
    wanted[4:14, 4:12, 3] = True
    assert np.array_equal(whole(answer, image), wanted)  # the point of section 5 is left out


def test_a_two_dimensional_network_answers_in_its_section() -> None:
    image = two_blocks()
    answer = segment_clicked(source(image, grey_network(dims=2)), Clicks([(6, 6, 3)]), section=3)
    assert whole(answer, image).sum() == 80 and whole(answer, image)[..., 3].sum() == 80
