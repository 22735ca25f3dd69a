"""What segment names mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.labels.hierarchy import FineClass, LabelHierarchy, flat_hierarchy, load_hierarchy
from lib.labels.segment_names import (
    SegmentMeaning,
    check_mapping,
    keeps_number,
    object_name,
    parse_segment_name,
    probably_meant,
)

H = load_hierarchy()
OBJECTS = H.object_set


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("axon", SegmentMeaning(H.set_named("axon"), "class")),
        ("  Axon ", SegmentMeaning(H.set_named("axon"), "class")),
        ("myelin_inner_tongue", SegmentMeaning(H.set_named("myelin inner tongue"), "class")),
        ("organelle", SegmentMeaning(H.set_named("organelle"), "group")),
        ("Neuron Part", SegmentMeaning(H.set_named("neuron_part"), "group")),
        ("glia", SegmentMeaning(1 << 5, "class")),
        ("axon 17", SegmentMeaning(H.set_named("axon"), "object", 17)),
        ("axon_17", SegmentMeaning(H.set_named("axon"), "object", 17)),
        ("AXON-17", SegmentMeaning(H.set_named("axon"), "object", 17)),
        ("axon #17", SegmentMeaning(H.set_named("axon"), "object", 17)),
        ("axon17", SegmentMeaning(H.set_named("axon"), "object", 17)),
        ("axon 007", SegmentMeaning(H.set_named("axon"), "object", 7)),
        ("organelle 3", SegmentMeaning(H.set_named("organelle"), "object", 3)),
        ("uncertain", SegmentMeaning(H.unknown, "uncertain")),
        ("Uncertain 2", SegmentMeaning(H.unknown, "uncertain")),
        ("background", SegmentMeaning(H.unknown, "ignored")),
        ("foreground_scribbles", SegmentMeaning(H.unknown, "ignored")),
        ("Segment_1", SegmentMeaning(OBJECTS, "object", 1)),
        ("the big one", SegmentMeaning(OBJECTS, "object")),
        ("axons", SegmentMeaning(OBJECTS, "object")),
        ("17", SegmentMeaning(OBJECTS, "object")),
        ("axon " + "9" * 5000, SegmentMeaning(OBJECTS, "object")),
        ("object 5", SegmentMeaning(OBJECTS, "object", 5)),
    ],
)
def test_names(name, meaning):
    assert parse_segment_name(name, H) == meaning


def test_mapping_of_a_labs_own_names():
    mapping = {"Neurite": "neuron_part", "mito": "mitochondria", "?": "uncertain"}
    assert parse_segment_name("neurite", H, mapping).kind == "group"
    five = parse_segment_name("neurite_5", H, mapping)
    assert five == SegmentMeaning(H.set_named("neuron_part"), "object", 5)
    assert parse_segment_name("MITO", H, mapping) == SegmentMeaning(1 << 10, "class")
    assert parse_segment_name("?", H, mapping).kind == "uncertain"


def test_a_mapping_wins_over_class_names():
    assert parse_segment_name("axon", H, {"axon": "soma"}).class_set == H.set_named("soma")


def test_a_mapping_to_nothing_known_is_refused():
    with pytest.raises(ValueError, match="'axxon' is neither a class nor a group"):
        parse_segment_name("a", H, {"a": "axxon"})


def test_a_mapping_is_checked_before_anyone_submits():
    check_mapping({"neurite": "neuron part", "?": "Uncertain", "mito": "mitochondria"}, H, "k")
    with pytest.raises(ValueError, match="is mapped to") as caught:
        check_mapping({"a": "axon", "b": "axxon", "c": "cell"}, H, "labels.segment_names")
    wrong = str(caught.value).splitlines()
    assert [line.split(",")[0] for line in wrong[:-1]] == [
        "labels.segment_names: 'b' is mapped to 'axxon'",
        "labels.segment_names: 'c' is mapped to 'cell'",
    ]
    for name in (*H.class_names, *H.group_names, "uncertain"):
        assert name in wrong[-1]


def test_class_names_that_end_in_numbers_are_no_objects():
    numbered = flat_hierarchy(5)
    assert parse_segment_name("class 3", numbered) == SegmentMeaning(1 << 3, "class")
    assert parse_segment_name("class 3 8", numbered) == SegmentMeaning(1 << 3, "object", 8)


def test_a_hierarchy_with_a_background_class_has_one():
    assert parse_segment_name("background", flat_hierarchy(2)) == SegmentMeaning(1, "class")


def test_without_object_classes_a_free_name_is_unknown():
    only = LabelHierarchy((FineClass("a", False, (0, 0, 0)), FineClass("b", False, (0, 0, 0))))
    assert parse_segment_name("thing", only).class_set == only.unknown


@given(class_set=st.integers(1, H.unknown), number=st.integers(1, 2**32 - 2))
def test_shown_names_are_read_back(class_set, number):
    meaning = parse_segment_name(object_name(class_set, number, H), H)
    assert meaning.kind == "object" and meaning.object_number == number
    exact = class_set.bit_count() == 1 or class_set in H.group_sets
    assert meaning.class_set == (class_set if exact else OBJECTS)


@pytest.mark.parametrize(
    ("name", "keeps"),
    [("axon 17", True), ("organelle_2", True), ("object 5", True), ("Segment_1", False),
     ("cell 4", False), ("big one", False)],
)  # fmt: skip
def test_only_names_that_the_app_gives_keep_their_number(name, keeps):
    assert keeps_number(name, parse_segment_name(name, H), H) is keeps


@given(st.text(min_size=1, max_size=30))
def test_any_name_means_something(name):
    meaning = parse_segment_name(name, H)
    assert 0 < meaning.class_set <= H.unknown


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mito", "mitochondria"),
        ("Mitochondrion 3", "mitochondria"),
        ("mitochondira", "mitochondria"),
        ("axons", "axon"),
        ("cell_body", "soma"),
        ("ECS", "extracellular space"),
        ("unknown", "uncertain"),
        ("organelles", "organelle"),
        ("neurite 5", None),
        ("Segment_1", None),
        ("the big one", None),
        ("17", None),
        ("object 4", None),
    ],
)
def test_what_a_name_that_is_none_was_meant_to_say(name: str, meant: str | None) -> None:
    assert probably_meant(name, H) == meant
    if meant is not None:
        assert parse_segment_name(name, H).class_set == OBJECTS, "it goes on meaning any object"
        assert parse_segment_name(meant, H).kind != "object"


def test_other_classes_have_other_slips() -> None:
    own = flat_hierarchy(3)
    assert probably_meant("mito", own) is None and probably_meant("unsure", own) == "uncertain"
