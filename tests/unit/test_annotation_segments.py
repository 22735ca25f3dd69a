"""Submissions to canonical labels: by name, in any order, with anything missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.annotation.segments import Segment, SubmissionTable, number_segments
from lib.labels.hierarchy import load_hierarchy, normalize_name
from lib.labels.segment_names import parse_segment_name

H = load_hierarchy()
AXON, DENDRITE, MITO = (H.set_named(n) for n in ("axon", "dendrite", "mitochondria"))
ECS = H.set_named("extracellular space")


def info(*pairs):
    return [{"name": n, "idx": i} for n, i in pairs]


def table(segments, present=None, **options):
    present = range(len(segments)) if present is None else present
    return SubmissionTable(segments, present, H, **options)


def single(names, **options):
    """A table for one layer whose n-th name has value n."""
    return table([Segment(n, i) for i, n in enumerate(names, 1)], **options)


def test_values_are_positions_even_where_idx_skips():
    got = number_segments(info(("axon", 1), ("soma", 3), ("tear", 4)), [1, 2, 3])
    assert [(s.name, s.value) for s in got] == [("axon", 1), ("soma", 2), ("tear", 3)]


def test_values_are_positions_where_idx_could_also_be_meant():
    """Slicer: scribbles were second, so soma has idx 3 and value 2; value 3 is tear."""
    got = number_segments(info(("axon", 1), ("soma", 3), ("tear", 4)), [3])
    assert {s.value: s.name for s in got}[3] == "tear"


def test_values_are_idx_where_positions_cannot_be():
    got = number_segments(info(("axon", 4), ("soma", 2)), [2, 4])
    assert {s.value: s.name for s in got} == {4: "axon", 2: "soma"}
    got = number_segments(info(("axon", 2), ("soma", 1)), [1, 2])
    assert {s.value: s.name for s in got} == {2: "axon", 1: "soma"}, "not ascending: not Slicer's"
    got = number_segments(info(("axon", 3), ("soma", 7)), [7])
    assert {s.value: s.name for s in got} == {3: "axon", 7: "soma"}


def test_values_are_idx_where_idx_do_not_ascend_though_they_are_large():
    got = number_segments(info(("axon", 3), ("soma", 2), ("tear", 4)), [2, 3])
    assert {s.value: s.name for s in got} == {3: "axon", 2: "soma", 4: "tear"}


def test_lists_that_count_from_zero_begin_with_the_background():
    got = number_segments(info(("background", 0), ("axon", 1), ("tear", 2)), [1, 2])
    assert {s.value: s.name for s in got} == {1: "axon", 2: "tear"}


def test_idx_may_be_missing_or_text():
    assert [s.value for s in number_segments([{"name": "a"}, {"name": "b"}], [2])] == [1, 2]
    assert [s.value for s in number_segments(info(("a", "9"), ("b", "8")), [8])] == [9, 8]


@pytest.mark.parametrize(
    ("entries", "present", "fault"),
    [
        (info(("axon", 1)), [1, 2], "label value 2 belongs to none of the 1 submitted"),
        ([], [1], "segments: none"),
        ([{"idx": 1}], [1], "has no name"),
        ([{"name": "  "}], [1], "has no name"),
        (info(("a", 5), ("b", 5)), [5], "belongs to none"),
    ],
)
def test_values_without_a_segment_are_refused(entries, present, fault):
    with pytest.raises(ValueError, match=fault):
        number_segments(entries, present)


def test_each_kind_of_segment():
    names = [
        "axon",
        "organelle",
        "axon 17",
        "uncertain",
        "blob",
        "extracellular space",
        "background",
    ]
    got = single(names).apply([np.arange(8)])
    assert got.class_sets.tolist() == [
        H.unknown, AXON, H.set_named("organelle"), AXON, H.unknown, H.object_set, ECS, H.unknown,
    ]  # fmt: skip
    assert got.instance.tolist() == [-1, -1, -1, 17, -1, 1, 0, -1]
    assert got.painted.tolist() == [False, *[True] * 6, False]
    assert got.uncertain.tolist() == [i == 4 for i in range(8)]


def test_numbers_are_ids_and_clashes_get_free_ones():
    segments = single(["axon 2", "dendrite 2", "axon_2", "cell", "Segment_2", "soma 1"])
    assert segments.objects == {
        2: "axon 2", 1: "soma 1", 3: "dendrite 2", 4: "cell", 5: "segment 2",
    }  # fmt: skip
    assert segments.apply([np.arange(7)]).instance.tolist() == [-1, 2, 3, 2, 4, 5, 1]


def test_ids_of_kept_voxels_and_known_names():
    options = {"taken": {1, 2, 9}, "known_objects": {"cell": 9}}
    segments = single(["blob", "CELL", "axon 2", "axon 9"], **options)
    assert segments.objects == {3: "blob", 9: "cell", 2: "axon 2", 4: "axon 9"}


def test_empty_segments_take_no_id():
    segments = single(["axon 1", "a", "b"], present=[1, 2])
    assert segments.objects == {1: "a", 2: "b"}


@pytest.mark.parametrize("number", [0, 2**32 - 1, 10**30])
def test_impossible_numbers_get_a_free_id(number):
    assert single([f"axon {number}"]).objects == {1: f"axon {number}"}


def layered(names):
    """Each name in a layer of its own, value 1."""
    return table([Segment(n, 1, i) for i, n in enumerate(names)])


def overlap(*names):
    """All segments over one voxel."""
    got = layered(names).apply([np.ones(1, int)] * len(names))
    return H.describe(int(got.class_sets[0])), int(got.instance[0]), got.conflicts


def test_overlaps_that_agree_narrow_each_other():
    assert overlap("organelle", "mitochondria") == ("mitochondria", -1, 0)
    assert overlap("mitochondria", "organelle") == ("mitochondria", -1, 0)
    assert overlap("axon 7", "axon") == ("axon", 7, 0)
    assert overlap("axon", "blob") == ("axon", 1, 0)
    assert overlap("neuron_part 4", "dendrite") == ("dendrite", 4, 0)


def test_overlaps_that_exclude_each_other_follow_the_later_segment():
    assert overlap("axon 7", "dendrite") == ("dendrite", -1, 1)
    assert overlap("dendrite", "axon 7") == ("axon", 7, 1)
    assert overlap("axon 7", "extracellular space") == ("extracellular space", 0, 1)
    assert overlap("mitochondria", "nucleus 3") == ("nucleus", 3, 1)
    assert overlap("axon 7", "soma", "dendrite 2") == ("dendrite", 2, 1)


def test_organelles_win_over_the_cell_around_them_in_any_order():
    for names in (("axon 7", "mitochondria"), ("mitochondria", "axon 7")):
        assert overlap(*names) == ("mitochondria", -1, 0)
    for names in (("axon 7", "mitochondria 4"), ("mitochondria 4", "axon 7")):
        assert overlap(*names) == ("mitochondria", 4, 0)
    assert overlap("organelle", "axon 7", "mitochondria") == ("mitochondria", -1, 0)
    assert overlap("nucleus", "blob") == ("nucleus", 1, 0), "a free name can be a nucleus"


def test_uncertain_wins_over_everything():
    for names in (("axon 7", "uncertain"), ("uncertain", "axon 7")):
        assert overlap(*names) == ("unknown", -1, 0)


def test_later_segments_hold_across_layers_in_list_order_not_layer_order():
    segments = table([Segment("axon", 1, 1), Segment("tear", 1, 0)])
    got = segments.apply([np.ones(1, int), np.ones(1, int)])
    assert H.describe(int(got.class_sets[0])) == "tear"


def test_fully_annotated_rules_out_what_was_painted():
    full = single(["axon", "organelle", "tear"], fully_annotated=True)
    left = H.unknown & ~H.set_of(["axon", "organelle", "tear"])
    assert full.unpainted() == (left, -1)


def test_fully_annotated_without_object_classes_left_has_no_object():
    everything = [c.name for c in H.classes if c.object]
    assert single(everything, fully_annotated=True).unpainted() == (
        H.set_of(["extracellular space", "tear"]), 0,
    )  # fmt: skip


def test_fully_annotated_with_objects_of_unknown_class():
    assert single(["cell a", "axon"], fully_annotated=True).unpainted() == (
        H.unknown & ~AXON, 0,
    )  # fmt: skip


def test_fully_annotated_counts_only_segments_with_voxels():
    assert single(["axon", "soma"], present=[0], fully_annotated=True).unpainted() == (
        H.unknown & ~AXON, -1,
    )  # fmt: skip
    assert single(list(H.class_names), present=[], fully_annotated=True).unpainted()[0] == H.unknown


def test_fully_annotated_with_all_classes_painted_leaves_unknown():
    assert single(list(H.class_names), fully_annotated=True).unpainted()[0] == H.unknown


def test_uncertain_and_ignored_rule_out_nothing():
    full = single(["uncertain", "background", "axon"], fully_annotated=True)
    assert full.unpainted()[0] == H.unknown & ~AXON
    got = full.apply([np.array([0, 1, 2])])
    assert got.class_sets.tolist() == [H.unknown & ~AXON, H.unknown, H.unknown & ~AXON]


def test_a_value_beyond_what_viewers_write_is_refused():
    with pytest.raises(ValueError, match="values 1 to 65535"):
        table([Segment("axon", 70000)])


NAMES = st.sampled_from(
    [*H.class_names, *H.group_names, "uncertain", "background", "blob", "Segment_3", "axon 17",
     "dendrite_4", "organelle 2", "AXON", "neurite 3"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(NAMES, max_size=12),
    skipped=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    full=st.booleans(),
)
def test_any_list_of_segments_maps_every_voxel_by_its_name(names, skipped, seed, full):
    """The oracle reads each voxel by itself, from its segment's name alone."""
    idx = np.cumsum(np.array(skipped[: len(names)], int) + 1)
    voxels = np.random.default_rng(seed).integers(0, len(names) + 1, (4, 3, 5)).astype(np.uint8)
    present = {int(v) - 1 for v in np.unique(voxels) if v}
    segments = number_segments(
        info(*zip(names, idx.tolist(), strict=True)), {i + 1 for i in present}
    )
    mapping = {"neurite": "neuron_part"}
    made = SubmissionTable(segments, present, H, mapping, fully_annotated=full)
    got = made.apply([voxels])
    left, left_id = made.unpainted()
    ids = {name: i for i, name in made.objects.items()}
    for value, bits, instance in zip(
        voxels.flat, got.class_sets.flat, got.instance.flat, strict=True
    ):
        meaning = parse_segment_name(names[value - 1], H, mapping) if value else None
        if meaning is None or meaning.kind == "ignored":
            assert (bits, instance) == (left, left_id)
        elif meaning.kind == "uncertain":
            assert (bits, instance) == (H.unknown, -1)
        else:
            assert bits == meaning.class_set
            if meaning.kind == "object":
                assert instance == ids[normalize_name(names[value - 1])] > 0
            else:
                assert instance == (-1 if meaning.class_set & H.object_set else 0)
    assert got.conflicts == 0
    keys = [normalize_name(names[i]) for i in present]
    objects = {k for k in keys if parse_segment_name(k, H, mapping).kind == "object"}
    assert set(ids) == objects, "one id for each object with voxels, and none for others"


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique_by=normalize_name), order=st.randoms())
def test_the_order_of_segments_does_not_change_what_voxels_are(names, order):
    """The same strokes, submitted with the segments in another order."""
    strokes = np.arange(len(names))
    shuffled = list(range(len(names)))
    order.shuffle(shuffled)
    plain = single(names).apply([strokes + 1])
    values = np.array([shuffled.index(i) + 1 for i in range(len(names))])
    other = single([names[i] for i in shuffled]).apply([values])
    assert (plain.class_sets == other.class_sets).all()
    assert ((plain.instance > 0) == (other.instance > 0)).all()
