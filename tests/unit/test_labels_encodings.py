"""The `final` map and published encodings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.labels.encodings import LabelValueError, class_sets_to_final, final_to_class_sets
from lib.labels.hierarchy import flat_hierarchy, load_hierarchy
from lib.labels.value_maps import ValueMap, encoding, load_value_map

H = load_hierarchy()
AXON, MITO = H.set_named("axon"), H.set_named("mitochondria")


def test_each_kind_of_set_has_its_own_code():
    pair = H.set_of(["glia", "extracellular space"])
    sets = np.array([AXON, H.set_named("organelle"), H.set_named("glia"), pair, H.unknown])
    final, extra = class_sets_to_final(sets.astype(np.int32), H, {})
    assert final.dtype == np.uint8
    assert final.tolist() == [4, 104, 6, 201, 0]
    assert extra == {201: ["extracellular space", "glia"]}


def test_both_unknowns_decode_to_unknown_and_a_single_class_group_to_the_class():
    assert final_to_class_sets(np.array([0, 255, 102], np.uint8), H, {}).tolist() == [
        H.unknown,
        H.unknown,
        H.set_named("glia"),
    ]


@given(
    sets=arrays(
        np.int32, (3, 4, 2), elements=st.sampled_from([1, 5, 6, 28, AXON, H.unknown, 4094])
    ),
    first=st.sampled_from([{}, {201: ["tear"]}, {203: ["axon", "soma"]}]),
)
def test_class_sets_survive_the_file(sets, first):
    final, extra = class_sets_to_final(sets, H, first)
    assert (final_to_class_sets(final, H, extra) == sets).all()
    assert {k: extra[k] for k in first} == first, "codes that were given out keep their meaning"


def test_codes_grow_from_slab_to_slab():
    first, extra = class_sets_to_final(np.array([0b110], np.int32), H, {})
    second, more = class_sets_to_final(np.array([0b101, 0b110], np.int32), H, extra)
    assert first.tolist() == [201] and second.tolist() == [202, 201]
    assert sorted(more) == [201, 202] and sorted(extra) == [201], "the caller's table is its own"


def test_many_classes_do_not_need_a_table_of_all_sets():
    many = flat_hierarchy(20)
    sets = np.array([[1, 1 << 19], [0b1010, many.unknown]], np.int32)
    final, extra = class_sets_to_final(sets, many, {})
    assert final.tolist() == [[1, 20], [201, 0]]
    assert (final_to_class_sets(final, many, extra) == sets).all()


def test_more_sets_than_codes_are_refused():
    sets = np.arange(3, 200, dtype=np.int32)
    with pytest.raises(ValueError, match="more than 54 different class sets"):
        class_sets_to_final(sets, H, {})


@pytest.mark.parametrize("bad", [0, -1, H.unknown + 1])
def test_sets_of_no_class_or_foreign_bits_are_refused(bad):
    with pytest.raises(ValueError, match="holds no class or one outside"):
        class_sets_to_final(np.array([1, bad], np.int32), H, {})


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(13, np.uint8), (106, np.uint8), (201, np.uint8), (256, np.uint16), (-1, int)],
)
def test_a_value_of_no_meaning_is_named_with_its_place(value, dtype):
    final = np.ones((2, 3, 4), dtype)
    final[1, 2, 3] = value
    with pytest.raises(LabelValueError, match=r"1\.\.12 classes") as caught:
        final_to_class_sets(final, H, {})
    assert caught.value.value == value and caught.value.index == (1, 2, 3)


def test_plan_encoding_reads_classes_and_both_unknowns():
    plan = encoding("plan", H)
    got = plan.apply(np.array([0, 3, 11, 255, -1]))
    assert got.tolist() == [1, AXON, 1 << 11, H.unknown, H.unknown]
    assert plan.apply(np.array([3, 255], np.uint8)).tolist() == [AXON, H.unknown]
    with pytest.raises(LabelValueError) as caught:
        plan.apply(np.array([[0, 12]], np.uint64))
    assert caught.value.value == 12 and caught.value.index == (0, 1)
    assert caught.value.allowed == "-1..11, 255"


def test_canonical_encoding_needs_the_files_own_sets():
    assert encoding("canonical", H, {201: ["axon", "soma"]}).apply(np.array([201, 4])).tolist() == [
        H.set_of(["axon", "soma"]),
        AXON,
    ]
    with pytest.raises(LabelValueError):
        encoding("canonical", H).apply(np.array([201]))


@given(values=arrays(np.int64, 20, elements=st.integers(-5, 300)))
def test_a_value_map_agrees_with_its_table(values):
    table = {-1: 1, 0: 2, 7: 4, 255: 8}
    got = ValueMap(table, other=16).apply(values)
    assert got.tolist() == [table.get(int(v), 16) for v in values]


def write(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return path


def test_mapping_file_reads_every_form(tmp_path):
    path = write(
        tmp_path,
        """
values:
  191: mitochondria
  159: [glia, extracellular space]
  255: {any_but: [mitochondria, myelin_related]}
  0-3: unknown
  -7: organelle
other: axon
""",
    )
    got = load_value_map(path, H).apply(np.array([191, 159, 255, 0, 3, -7, 4]))
    assert got.tolist() == [
        MITO,
        H.set_of(["glia", "extracellular space"]),
        H.unknown & ~H.set_of(["mitochondria", "myelin_related"]),
        H.unknown,
        H.unknown,
        H.set_named("organelle"),
        AXON,
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("values: {1: axxon}", "values.1: 'axxon' is neither a class nor a group"),
        ("values: {1: {all_but: axon}}", "values.1: expected a class"),
        ("values: {1: []}", "values.1: expected a class"),
        ("values: {one: axon}", "values.one: expected a whole number or a range"),
        ("values: {5-2: axon}", "values.5-2: expected a whole number or a range"),
        ("values: {1: axon, 0-4: soma}", "value 1 is listed twice"),
        ("values: {}", "at least one label value"),
        ("{1: axon}", "expected a mapping `values`"),
        ("{values: {1: axon}, default: axon}", "unknown keys ['default']"),
        ("values: {1: {any_but: [neuron_part, glia, myelin_related, organelle, non_tissue]}}",
         "any_but leaves no class"),
        ("values: [", "while parsing"),
        ("values: {1: axon, 99999999: soma}", "are over 65536 values"),
        ("values: {true: axon}", "values.True: expected a whole number"),
    ],
)  # fmt: skip
def test_mapping_file_faults_name_file_and_entry(tmp_path, text, fault):
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        load_value_map(path, H)
    assert str(path) in str(caught.value) and fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mapping_file_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        load_value_map(tmp_path / "no.yaml", H)
