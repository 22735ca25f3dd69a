"""The label hierarchy: the twelve classes of the specification, and a lab's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.labels.class_sets import cells_only, coarse_targets, fine_labels, known_mask, set_members
from lib.labels.hierarchy import (
    FineClass,
    LabelHierarchy,
    flat_hierarchy,
    hierarchy_from_dict,
    load_hierarchy,
    normalize_name,
)

H = load_hierarchy()


def test_the_default_is_the_specifications_table():
    """spec/hierarchical-supervision.md, "Mapping fine to coarse", row by row."""
    assert H.class_names == (
        "extracellular space", "tear", "dendrite", "axon", "soma", "glia", "myelin",
        "myelin inner tongue", "myelin outer tongue", "nucleus", "mitochondria", "fat globule",
    )  # fmt: skip
    assert H.group_names == ("neuron_part", "glia", "myelin_related", "organelle", "non_tissue")
    rows = [4, 4, 0, 0, 0, 1, 2, 2, 2, 3, 3, 3]
    assert (H.coarse_lut == np.eye(5, dtype=np.float32)[rows]).all()
    assert H.members(H.object_set) == tuple(range(2, 12))
    assert H.members(H.inside_set) == (9, 10, 11)


def test_names_find_classes_before_groups():
    assert H.set_named("Myelin_Inner  Tongue") == 1 << 7
    assert H.set_named("glia") == 1 << 5
    assert H.set_of(["organelle", "axon", 0]) == 0b1110_0000_1001
    with pytest.raises(ValueError, match="neither a class nor a group; classes: extracellular"):
        H.set_named("axonn")


def test_descriptions():
    assert H.describe(H.unknown) == "unknown"
    assert H.describe(1 << 3) == "axon"
    assert H.describe(H.set_named("organelle")) == "organelle"
    assert H.describe(0b1010) == "tear or axon"
    assert H.describe(H.object_set) == "any but extracellular space, tear"


@given(st.integers(1, H.unknown), st.integers(1, H.unknown))
def test_descriptions_tell_sets_apart(one, other):
    assert (H.describe(one) == H.describe(other)) is (one == other)


def test_yaml_form_comes_back():
    assert hierarchy_from_dict(H.to_dict()).to_dict() == H.to_dict()
    own = {"classes": ["a", {"name": "b", "object": False}], "groups": {"g": ["a", "b"]}}
    made = hierarchy_from_dict(own)
    assert made.class_names == ("a", "b") and made.object_set == 1 and made.group_sets == (3,)
    assert hierarchy_from_dict({"classes": ["a"], "groups": None}).num_groups == 0


def test_classes_may_be_in_no_group_or_in_several():
    made = hierarchy_from_dict(
        {"classes": ["a", "b", "c"], "groups": {"g": ["a", "b"], "k": ["b"]}}
    )
    assert made.coarse_lut.tolist() == [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({}, "at least one fine class"),
        ({"classes": []}, "at least one fine class"),
        ({"classes": ["a"], "group": {}}, "unknown keys ['group']"),
        ({"classes": ["a", "A"]}, "class names must be unique, repeated: A, a"),
        ({"classes": ["a b", "a_b"]}, "class names must be unique"),
        ({"classes": ["a"], "groups": {"g": ["b"]}}, "groups.g: 'b' is no class; classes: a"),
        ({"classes": ["a"], "groups": {"g": []}}, "group 'g' holds no class"),
        ({"classes": ["a"], "groups": {"g": ["a", "a"]}}, "lists a class twice"),
        ({"classes": ["a"], "groups": {"g": ["a"], "G": ["a"]}}, "group names must be unique"),
        ({"classes": ["a", "b"], "groups": {"a": ["b"]}}, "has a class's name but holds other"),
        ({"classes": [{"name": "a", "colour": 1}]}, "classes[0]: unknown keys ['colour']"),
        ({"classes": [{"object": True}]}, "classes[0]: a name is needed"),
        ({"classes": [{"name": "a", "color": [1, 2]}]}, "classes[0].color: expected three"),
        ({"classes": [{"name": "a", "color": [1, 2, 256]}]}, "classes[0].color: expected three"),
        ({"classes": [f"c{i}" for i in range(31)]}, "1 to 30 fine classes, got 31"),
        ({"classes": "axon"}, "classes: a list of at least one fine class"),
        ({"classes": {"a": 1}}, "classes: a list of at least one fine class"),
        ({"classes": ["a", 5]}, "classes[1]: expected a name or keys, got 5"),
        ({"classes": [None]}, "classes[0]: expected a name or keys, got None"),
        ({"classes": [{"name": "a", 3: 4}]}, "classes[0]: unknown keys ['3']"),
        ({"classes": [{"name": "a", "color": "red"}]}, "three values 0..255, got 'red'"),
        ({"classes": [{"name": "a", "color": 7}]}, "three values 0..255, got 7"),
        ({"classes": [{"name": "a", "color": [1, -1, 2]}]}, "three values 0..255, got [1, -1, 2]"),
        ({"classes": [{"name": "a", "color": [1, 0.5, 2]}]}, "classes[0].color: expected three"),
        ({"classes": [{"name": "a", "object": "no"}]}, "classes[0].object: expected true or false"),
        ({"classes": [{"name": "a", "inside": 1}]}, "classes[0].inside: expected true or false"),
        ({"classes": ["a"], "groups": ["a"]}, "groups: expected group names with lists"),
        ({"classes": ["a"], "groups": {"g": "a"}}, "groups.g: expected a list of classes, got 'a'"),
        ({"classes": ["a"], "groups": {"g": None}}, "groups.g: expected a list of classes"),
        ({"classes": ["a"], "groups": {"g": [["a"]]}}, "groups.g: ['a'] is no class"),
        ({"classes": ["a"], 1: 2}, "unknown keys ['1']"),
    ],
)
def test_what_is_no_hierarchy_is_refused(data, fault):
    with pytest.raises(ValueError) as caught:
        hierarchy_from_dict(data)
    assert fault in str(caught.value)


@pytest.mark.parametrize("text", ["- a", "classes: [", "classes: []", "", "classes: axon", "5"])
def test_files_are_named_in_faults(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"own\.yaml"):
        load_hierarchy(path)
    with pytest.raises(ValueError, match=r"none\.yaml"):
        load_hierarchy(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes("classes: [Größe]".encode("latin-1"))
    with pytest.raises(ValueError, match=r"label hierarchy .*own\.yaml: "):
        load_hierarchy(path)
    path.write_text("classes: [Größe]", encoding="utf-8")
    assert load_hierarchy(path).class_names == ("Größe",)


def test_every_class_has_a_colour_of_its_own():
    made = hierarchy_from_dict({"classes": [f"c{i}" for i in range(30)]})
    assert len({c.color for c in made.classes}) == 30
    assert all(len(c.color) == 3 and min(c.color) >= 0 for c in made.classes)
    assert all(max(c.color) == 242 for c in made.classes), "all as bright"


def test_a_group_may_have_the_name_of_its_only_class():
    made = LabelHierarchy((FineClass("glia", True, (0, 0, 0)),), (("glia", (0,)),))
    assert made.set_named("glia") == 1


def test_background_and_foreground():
    assert flat_hierarchy(2).class_names == ("background", "foreground")
    assert flat_hierarchy(2).object_set == 0b10
    assert flat_hierarchy(3).class_names == ("class 0", "class 1", "class 2")


def test_names_that_differ_only_in_writing():
    assert normalize_name("  My_Axon  17 ") == "my axon 17"


def sets(*values):
    return torch.tensor([values], dtype=torch.int32)


def test_fine_labels_are_where_one_class_is_left():
    assert fine_labels(sets(1, 1 << 11, 0b11, H.unknown), H).tolist() == [[0, 11, -1, -1]]
    assert known_mask(sets(1, 0b11, H.unknown), H).tolist() == [[True, True, False]]


@given(st.lists(st.integers(1, H.unknown), min_size=1, max_size=20))
def test_coarse_bits_are_known_where_all_classes_agree(values):
    """Against the definition, class by class."""
    bits, known = coarse_targets(sets(*values), H)
    members = set_members(sets(*values), H.num_classes)
    for i, value in enumerate(values):
        inside = [c for c in range(12) if value >> c & 1]
        assert members[0, :, i].nonzero().flatten().tolist() == inside
        for k in range(5):
            column = {float(H.coarse_lut[c, k]) for c in inside}
            agreed = len(column) == 1 and value != H.unknown
            assert bool(known[0, k, i]) is agreed
            assert bool(bits[0, k, i]) is (agreed and column == {1.0})


def test_without_groups_there_are_no_coarse_targets():
    bits, known = coarse_targets(sets(1, 2), flat_hierarchy(2))
    assert bits.shape == known.shape == (1, 0, 2)


def test_organelles_say_nothing_of_the_cell_around_them() -> None:
    h = load_hierarchy()
    axon, nucleus = (1 << h.class_names.index(name) for name in ("axon", "nucleus"))
    sets = np.array([axon, nucleus, axon | nucleus, h.unknown], np.int32)
    assert cells_only(np.array([5, 6, 5, -1]), sets, h).tolist() == [5, -1, 5, -1]
