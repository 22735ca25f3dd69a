"""Clicks on objects that stand, on constructed cases and through the task."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from click_cases import grey_network, source, whole

from lib.clicks.answer import segment_clicked
from lib.clicks.ground import seen_ground
from lib.clicks.source import Clicks
from lib.clicks.starting import StartingMask
from lib.clicks.viewer import FramedLabels
from lib.configs.settings import InferenceSettings, Settings
from lib.infers.base import Parts
from lib.infers.proofread import Proofread
from lib.infers.viewer_labels import ViewerLabels
from lib.labels.hierarchy import flat_hierarchy, load_hierarchy
from lib.networks.study_heads import BOUNDARY, StudyHeads, with_study_heads
from lib.prediction.affinities import sheath_and_rest
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.graph import FragmentGraph
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.proofread.store import MACHINE_TAG, ObjectStore
from lib.volumes.boxes import box_slices, whole_box
from lib.volumes.disk_ids import UNKNOWN_ID
from lib.volumes.frames import viewer_frame
from lib.volumes.opened import ImageStore

BODY = (slice(2, 30), slice(4, 12), slice(1, 7))
"""One object of one grey value; the objects that stand disagree with it on purpose."""


def body() -> np.ndarray:
    image = np.zeros((32, 32, 8), np.float32)
    image[BODY] = 2
    image[2:30, 20:28, 1:7] = 5
    return image


def objects() -> np.ndarray:
    """Of the body: halves 7 and 9; 4 merges the other object with a piece of background."""
    ids = np.zeros((32, 32, 8), np.uint32)
    ids[2:16, 4:12, 1:7] = 7
    ids[16:30, 4:12, 1:7] = 9
    ids[2:30, 16:28, 1:7] = 4
    return ids


def answer(clicks: Clicks, ids: Any, image: np.ndarray | None = None, **more: Any) -> np.ndarray:
    image = body() if image is None else image
    return whole(segment_clicked(replace(source(image), objects=ids), clicks, **more), image)


def test_one_click_takes_the_whole_object_that_stands() -> None:
    image = body()
    found = segment_clicked(replace(source(image), objects=objects()), Clicks([(5, 18, 3)]))
    assert found.fragments and not found.warnings
    assert np.array_equal(whole(found, image), objects() == 4)


def test_two_positive_points_merge_two_objects() -> None:
    image = body()
    clicks = Clicks([(5, 6, 3), (25, 7, 3)])
    found = segment_clicked(replace(source(image), objects=objects()), clicks)
    assert np.array_equal(whole(found, image), image == 2)
    assert not found.warnings
    clicks = Clicks([(5, 6, 3), (5, 22, 3)])
    apart = segment_clicked(replace(source(image), objects=objects()), clicks)
    assert np.array_equal(whole(apart, image), np.isin(objects(), (4, 7)))
    assert "2 parts that do not touch" in apart.warnings[0]


def test_a_positive_and_a_negative_point_split_one_object() -> None:
    image = body()
    merged = np.where(image > 0, np.uint32(3), np.uint32(0))
    merged[15:17, 12:20, 3:5] = 3  # a bridge between two objects that look different
    mask = answer(Clicks([(8, 8, 3)], [(8, 24, 3)]), merged)
    assert mask[image == 2].all() and not mask[image == 5].any()
    same = np.where(merged > 0, np.float32(2), np.float32(0))  # the network sees no difference
    mask = answer(Clicks([(16, 8, 3)], [(16, 24, 3)]), merged, same)
    assert mask[:, 4:10][merged[:, 4:10] > 0].all() and not mask[:, 22:].any()


def test_a_click_on_a_border_moves_the_border() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    ids = np.full((32, 32, 8), 7, np.uint32)
    ids[16:] = 9  # the true border lies at 15
    less = answer(Clicks([(6, 16, 4)], [(15, 16, 4)]), ids, image)
    assert not less[15, 16, 4] and less[:13].all() and not less[16:].any()
    more = answer(Clicks([(6, 16, 4), (17, 16, 4)]), ids, image)
    assert more[17, 16, 4] and more[:16].all() and not more[21:].any()
    inner = answer(Clicks([(6, 16, 4), (27, 16, 4)]), ids, image)
    assert inner.all()  # in its middle: all of it is meant


def test_a_cut_takes_nothing_from_an_object_without_negative_points() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    ids = np.full((32, 32, 8), 7, np.uint32)
    ids[16:] = 9
    mask = answer(Clicks([(6, 16, 4), (20, 8, 4)], [(28, 30, 4)]), ids, image)
    assert mask[:16].all() and mask[20, 8, 4] and not mask[28, 30, 4]


def test_where_no_object_stands_the_fragments_say() -> None:
    ids = objects()
    ids[:, 16:28] = 0
    ids[5:10, 4:6, 3] = UNKNOWN_ID
    assert np.array_equal(answer(Clicks([(15, 24, 3)]), ids), body() == 5)
    none = np.zeros_like(ids)
    for clicks in (Clicks([(5, 6, 3)]), Clicks([(5, 6, 3)], [(25, 6, 3)])):
        alone = whole(segment_clicked(source(body()), clicks), body())
        assert np.array_equal(answer(clicks, none), alone)


def test_fragments_of_the_item_are_used_where_they_are_of_this_image() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    ids = np.ones(image.shape, np.uint32)
    ids[12:] = 2
    stats = np.zeros((1, 4, 5))
    stats[0, 0] = (256, 0.2, 0, 0.2, 0.2)
    graph = FragmentGraph(np.array([[1, 2]]), stats, np.array([[0, 0], [3072, 0], [5120, 0]]))
    kept = ("one", lambda: Fragments(ids, graph))
    found = segment_clicked(replace(source(image), kept=kept), Clicks([(5, 16, 4)]))
    assert np.array_equal(whole(found, image), ids == 1) and found.windows == 0
    for other in (lambda: Fragments(ids[1:], graph), lambda: None):
        asked = replace(source(image), kept=("two", other))
        found = segment_clicked(asked, Clicks([(5, 16, 4)]))
        assert whole(found, image).all() and found.windows > 0


def test_an_object_is_followed_to_the_limit() -> None:
    image = np.zeros((160, 40, 8), np.float32)
    ids = np.zeros(image.shape, np.uint32)
    ids[2:158, 10:16, 2:6] = 2**31 + 5
    near = replace(source(image), objects=ids)
    inference = InferenceSettings(
        click_window=(32, 32, 8), click_window_limit=(160, 40, 8), precision="float32"
    )
    found = segment_clicked(replace(near, inference=inference), Clicks([(10, 12, 3)]))
    assert np.array_equal(whole(found, image), ids > 0) and found.windows == 0
    cut = segment_clicked(near, Clicks([(10, 12, 3)]))  # 96 voxels, less what lies outside
    assert cut.warnings == ("the object goes on beyond the limit of the click window",)
    assert whole(cut, image)[2:90, 12, 3].all() and not whole(cut, image)[96:].any()
    far = segment_clicked(replace(near, inference=inference), Clicks([(10, 12, 3)], [(150, 12, 3)]))
    mask = whole(far, image)  # denied far outside the window of the click
    assert mask[2:140].sum() == (ids[2:140] > 0).sum() and not mask[149:152, 12, 3].any()


def test_every_click_list_has_one_answer_whatever_came_before() -> None:
    image, ids = body(), objects()
    lists = [
        Clicks([(5, 6, 3)]),
        Clicks([(5, 6, 3)], [(14, 10, 3)]),
        Clicks([(5, 6, 3), (22, 8, 3)], [(14, 10, 3)]),
        Clicks([(5, 18, 3)], [(5, 24, 3)]),
    ]
    fresh = [answer(c, ids) for c in lists]
    assert len({f.tobytes() for f in fresh}) == len(lists)
    shared = replace(source(image), objects=ids)
    for i in (3, 0, 2, 1, 0, 3, 1, 2):
        assert np.array_equal(whole(segment_clicked(shared, lists[i]), image), fresh[i])


def test_edits_sections_and_empty_requests() -> None:
    ids = objects()
    edited = ids == 7
    edited[2:5] = False
    start = StartingMask(edited, whole_box((32, 32, 8)))
    more = answer(Clicks([(8, 6, 3), (25, 6, 3)]), ids, start=start)
    assert np.array_equal(more, edited | (ids == 9))
    flat = answer(Clicks([(5, 6, 3)]), ids, section=3)
    assert np.array_equal(flat, (ids == 7) & (np.arange(8) == 3))
    only = answer(Clicks([(25, 6, 3)]), ids, section=3, start=start)
    assert np.array_equal(only[..., 4], edited[..., 4]) and only[25, 6, 3]
    assert not answer(Clicks([], [(5, 6, 3)]), ids).any()


@pytest.mark.parametrize(("finest", "split"), [(0.0, 1), (16.0, 1), (4.0, 2)])
def test_labels_in_the_networks_frame(finest: float, split: int) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (6, 12, 10)).astype(np.uint32)
    frame = viewer_frame(ids.shape, (40.0, 8.0, 8.0), finest, split)
    framed = FramedLabels(frame, ids)
    expected = frame.labels_to_network(ids, whole_box(frame.network_shape))
    assert framed.shape == expected.shape
    n = framed.shape
    for box in (whole_box(n), ((1, n[0] - 1), (0, 3), (2, 4)), ((3, 4), (2, 3), (1, 2))):
        assert np.array_equal(framed[box_slices(box)], expected[box_slices(box)])


class OneNetwork:
    """Stands for the published weights."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.version, self.heads = predictor, "one", ""

    def get(self, device: str) -> Any:
        return self

    def turn(self, kind: str, device: str) -> Any:
        return nullcontext()


@pytest.fixture
def task(tmp_path: Path) -> Proofread:
    inference = InferenceSettings(click_window=(32, 32, 8), precision="float32")
    hierarchy = flat_hierarchy(4)
    predictor = Predictor(grey_network(), hierarchy, inference)
    cache = FeatureCache(2**26)
    cache.contrast = lambda key, compute: (0.0, 7.0)  # type: ignore[method-assign]
    settings = Settings()
    network: Any = OneNetwork(predictor)
    labels = ViewerLabels(hierarchy)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    nib.save(nib.Nifti1Image(body().astype(np.uint8), affine), tmp_path / "cell.nii")
    return Proofread(
        Parts(network, labels, settings, ImageStore("nm"), cache, ObjectStore(tmp_path, 50))
    )


def test_the_task_reads_what_instances_stored(task: Proofread, tmp_path: Path) -> None:
    request = {"image": str(tmp_path / "cell.nii"), "device": "cpu", "foreground": [[5, 24, 3]]}

    def ask() -> tuple[np.ndarray, dict[str, Any]]:
        file, params = task(dict(request))
        assert file is not None
        return np.asarray(nib.load(file).dataobj), params

    alone, told = ask()
    assert told["fragments"] is False and told["warnings"] == []
    path = tmp_path / "labels" / MACHINE_TAG / "cell.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(objects(), np.eye(4)), path)
    started, told = ask()
    assert told["fragments"] is True and told["warnings"] == []
    assert started[(objects() == 4) & (body() == 5)].all() and not started[objects() != 4].any()
    nib.save(nib.Nifti1Image(objects()[1:], np.eye(4)), path)  # of another image
    other, told = ask()
    assert told["fragments"] is False and "(31, 32, 8)" in told["warnings"][0]
    path.write_bytes(path.read_bytes()[:60])
    torn, told = ask()
    assert told["fragments"] is False and "cannot be read" in told["warnings"][0]
    assert np.array_equal(other, alone) and np.array_equal(torn, alone)


@pytest.mark.parametrize("hierarchy", [load_hierarchy(), flat_hierarchy(2), flat_hierarchy(5)])
def test_a_sheath_and_what_it_holds_are_two_kinds(hierarchy: Any) -> None:
    found = sheath_and_rest(hierarchy)
    assert found.class_names == hierarchy.class_names
    members = sorted(c for _, group in found.groups for c in group)
    assert members == list(range(hierarchy.num_classes))
    if "myelin" in hierarchy.class_names:
        axon, myelin, tongue = (
            hierarchy.class_names.index(n) for n in ("axon", "myelin", "myelin inner tongue")
        )
        (_, sheath), (_, rest) = found.groups
        assert {myelin, tongue} <= set(sheath) and axon in rest


@pytest.mark.parametrize("beside", [0, FILTERS])
def test_fragments_around_a_click_end_where_a_study_has_learned_boundaries(beside: int) -> None:
    image = np.zeros((32, 32, 8), np.float32)
    image[4:14, 4:12, 1:7], image[14:24, 4:12, 1:7] = 2, 5  # two objects that touch
    asked = source(image)
    heads = StudyHeads(asked.net.feature_channels, {BOUNDARY: 1}, 4, beside)
    torch.nn.init.zeros_(heads.outer.weight)
    torch.nn.init.constant_(heads.outer.bias, -9.0)  # no boundary anywhere
    learned = replace(asked, grouping=with_study_heads(asked.net, heads.eval()), heads="one")
    for here, apart in ((asked, True), (learned, False)):
        ground = seen_ground(here, [whole_box((32, 32, 8))])
        one, other = (int(ground.cells[ground.fragments.ids[p]]) for p in ((8, 8, 3), (20, 8, 3)))
        assert (one != other) == apart


def test_a_neighbour_is_not_brought_whole_where_denied() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    ids = np.full((32, 32, 8), 7, np.uint32)
    ids[10:] = 9
    beside = answer(Clicks([(4, 16, 4), (11, 16, 4)]), ids, image)  # two deep: the border
    assert beside[11, 16, 4] and beside[:10].all() and not beside[15:].any()
    middle = answer(Clicks([(4, 16, 4), (21, 16, 4)]), ids, image)
    assert middle.all()
    denied = answer(Clicks([(4, 16, 4), (21, 16, 4)], [(27, 6, 4)]), ids, image)
    assert denied[:10].all() and denied[21, 16, 4] and not denied[27:, :10].any()


def test_a_large_part_beyond_what_a_click_took_stays_and_a_small_one_goes() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    image[10:16], image[16:] = 5, 3
    ids = np.full(image.shape, 3, np.uint32)
    large = answer(Clicks([(4, 16, 4)], [(13, 16, 4)]), ids, image)
    assert large[:10].all() and not large[10:16].any() and large[16:].all()
    image[10:16], image[10:26], image[26:] = 5, 5, 3
    small = answer(Clicks([(4, 16, 4)], [(18, 16, 4)]), ids, image)
    assert small[:10].all() and not small[10:].any()


def test_a_split_parts_all_that_holds_to_a_point_however_near_to_a_border_it_lies() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    image[16:] = 5
    ids = np.full(image.shape, 3, np.uint32)
    points = [(6, 16, 4)], [(17, 16, 4)]
    assert np.array_equal(answer(Clicks(*points, split=True), ids, image), image == 2)
    assert answer(Clicks([(6, 16, 4)], [(31, 16, 0)], split=True), ids, image)[16:].sum() == 0
    thin = ids.copy()
    thin[:, :2] = 0
    near = answer(Clicks([(6, 16, 4)], [(24, 2, 4)]), thin, image)  # at the border: a ball
    assert near[26:, 10:].all()
    parted = answer(Clicks([(6, 16, 4)], [(24, 2, 4)], split=True), thin, image)
    assert np.array_equal(parted, (image == 2) & (thin > 0))
