"""Label values of any type, and class sets in words and as colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.labels.class_sets import fine_labels, set_members
from lib.labels.colors import LABEL_OPACITY, id_colors, overlay, set_colors
from lib.labels.encodings import LabelValueError, describe_codes, final_to_class_sets
from lib.labels.hierarchy import flat_hierarchy, hierarchy_from_dict, load_hierarchy
from lib.labels.segment_names import object_name, parse_segment_name, slip_told
from lib.labels.value_maps import ValueMap, encoding, load_value_map

H = load_hierarchy()
AXON, SOMA = H.set_named("axon"), H.set_named("soma")
TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]


@pytest.mark.parametrize("dtype", TYPES)
def test_values_are_read_whatever_their_type(dtype) -> None:
    values = ValueMap({0: 1, 3: 2, 100: 4})
    found = values.apply(np.array([[0, 3], [100, 0]], dtype))
    assert found.tolist() == [[1, 2], [4, 1]] and found.dtype == np.int32
    top = int(np.iinfo(dtype).max)
    with pytest.raises(LabelValueError) as caught:
        values.apply(np.array([[0, 3], [100, top]], dtype))
    assert (caught.value.value, caught.value.index) == (top, (1, 1))
    assert caught.value.allowed == "0, 3, 100"
    rest = ValueMap({0: 1, 3: 2}, other=8).apply(np.array([0, 1, 3, top], dtype))
    assert rest.tolist() == [1, 8, 2, 8]


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_uncertain_is_told_whatever_the_type(dtype) -> None:
    """A value that the type cannot hold occurs nowhere; None stands for all that are not listed."""
    plan = encoding("plan", H)
    values = np.array([0, 5, 100], dtype)
    assert not plan.says_uncertain(values).any()
    unlisted = ValueMap({0: 1, 5: 2}, other=H.unknown, uncertain=frozenset({None}))
    assert unlisted.says_uncertain(values).tolist() == [False, False, True]
    for value in (255, -1):
        if np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            assert plan.says_uncertain(np.array([0, value], dtype)).tolist() == [False, True]


def test_unlabelled_is_unknown_that_an_id_may_still_say_more_of(tmp_path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("values: {0: unlabelled, 1: unknown, 2: axon}\nother: unknown\n")
    found = load_value_map(path, H)
    values = np.array([0, 1, 2, 9])
    assert found.apply(values).tolist() == [H.unknown, H.unknown, AXON, H.unknown]
    assert found.says_uncertain(values).tolist() == [False, True, False, True]
    path.write_text("values: {0: unlabelled, 2: axon}\nother: unlabelled\n")
    assert not load_value_map(path, H).says_uncertain(values).any()


@given(st.sets(st.integers(-20, 40), min_size=1))
def test_ranges_tell_each_value_once(values) -> None:
    text = ValueMap(dict.fromkeys(values, 1)).describe()
    told: list[int] = []
    for part in text.split(", "):
        low, dots, high = part.partition("..")
        told += range(int(low), int(high if dots else low) + 1)
    assert told == sorted(values)
    assert text.count(",") + 1 == sum(v - 1 not in values for v in values)


@pytest.mark.parametrize("span", [65536, 65537])
def test_values_far_apart_are_refused(tmp_path, span: int) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(f"values: {{0: axon, {span}: soma}}\n")
    if span == 65536:
        assert load_value_map(path, H).apply(np.array([span])).tolist() == [SOMA]
    else:
        with pytest.raises(ValueError, match=r"from 0 to 65537 are over 65536 values"):
            load_value_map(path, H)


@pytest.mark.parametrize("values", [[0.5], [np.nan], [-1.0], [256.0], [np.inf]])
def test_floating_values_that_are_no_labels_are_refused(values) -> None:
    assert final_to_class_sets(np.array([4.0, 0.0]), H, {}).tolist() == [AXON, H.unknown]
    with pytest.raises(LabelValueError):
        final_to_class_sets(np.array([4.0, *values]), H, {})


def test_the_values_of_a_map_in_words() -> None:
    assert describe_codes(H, {}) == "0 unlabelled, 1..12 classes, 101..105 groups, 255 uncertain"
    assert describe_codes(flat_hierarchy(2), {203: ["a"], 201: ["b"]}) == (
        "0 unlabelled, 1..2 classes, 201, 203 class sets of the item, 255 uncertain"
    )


def test_no_voxels_have_no_sets() -> None:
    assert final_to_class_sets(np.zeros((0, 3), np.uint8), H, {}).shape == (0, 3)
    assert ValueMap({0: 1}).apply(np.zeros((2, 0), np.int16)).shape == (2, 0)


@given(arrays(np.int32, (2, 3), elements=st.integers(1, H.unknown)))
def test_members_and_fine_labels_are_those_of_the_bits(sets) -> None:
    found = set_members(torch.tensor(sets), H.num_classes)
    assert found.shape == (2, H.num_classes, 3)
    fine = fine_labels(torch.tensor(sets), H)
    for b, i in np.ndindex(sets.shape):
        members = H.members(int(sets[b, i]))
        assert tuple(found[b, :, i].nonzero().flatten().tolist()) == members
        assert int(fine[b, i]) == (members[0] if len(members) == 1 else -1)


def test_a_set_is_described_by_what_is_shorter() -> None:
    few, many = AXON | SOMA, H.unknown & ~(AXON | SOMA)
    names = [H.classes[i].name for i in H.members(few)]
    assert H.describe(few) == " or ".join(names) and H.describe(many) == "any but " + ", ".join(
        names
    )
    half = flat_hierarchy(4)
    assert half.describe(0b0011) == "class 0 or class 1"
    assert half.describe(0b0111) == "any but class 3" and half.describe(0b1111) == "unknown"
    grouped = hierarchy_from_dict({"classes": list("abcd"), "groups": {"most": list("abc")}})
    assert grouped.describe(0b0111) == "most"


def test_objects_are_shown_under_names_that_say_their_class() -> None:
    assert object_name(AXON, 17, H) == "axon 17"
    assert object_name(H.set_named("organelle"), 3, H) == "organelle 3"
    assert object_name(AXON | SOMA, 5, H) == "object 5" == object_name(H.unknown, 5, H)


def test_slips_are_told_and_good_names_are_not() -> None:
    told = "'axons 3' is one object of unknown class; was 'axon' meant?"
    assert slip_told("axons 3", H) == told
    for name in ("axon 3", "axon", "uncertain", "organelle 2", "background", "the big one"):
        assert slip_told(name, H) is None
    assert slip_told("axons 3", H, {"axons": "axon"}) is None, "the lab's own name"
    assert parse_segment_name("axons 3", H, {"axons": "axon"}).class_set == AXON


def test_colours_of_sets_are_means_and_of_ids_distinct() -> None:
    sets = np.array([[AXON, AXON | SOMA]])
    axon, soma = (np.array(H.classes[H.members(s)[0]].color) / 255 for s in (AXON, SOMA))
    found = set_colors(sets, H)
    assert found.shape == (1, 2, 3)
    assert found[0, 0] == pytest.approx(axon) and found[0, 1] == pytest.approx((axon + soma) / 2)
    ids = id_colors(np.array([-1, 0, *range(1, 40), 2**40]))
    assert not ids[:2].any() and len({tuple(c) for c in ids[2:].tolist()}) == 40
    near = np.abs(np.diff(ids[2:-1], axis=0)).max(1)
    assert near.min() > 0.2, "neighbours differ plainly"


def test_colours_lie_over_the_image_where_they_say_something() -> None:
    grey, color = np.full((1, 2, 3), 0.5, np.float32), np.ones((1, 2, 3), np.float32)
    found = overlay(grey, color, np.array([[True, False]]))
    assert found[0, 0] == pytest.approx([0.5 + 0.5 * LABEL_OPACITY] * 3)
    assert found[0, 1].tolist() == [0.5] * 3
