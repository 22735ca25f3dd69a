"""Clicks that start from automatic objects, on constructed cases and through the task."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click_cases import grey_network, source, whole

from lib.clicks.answer import StartingMask, segment_clicked
from lib.clicks.fragments import UNKNOWN, FramedLabels
from lib.clicks.source import Clicks
from lib.configs.settings import InferenceSettings, Settings
from lib.infers.base import Parts
from lib.infers.proofread import Proofread
from lib.infers.viewer_labels import ViewerLabels
from lib.labels.hierarchy import flat_hierarchy
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.proofread.store import MACHINE_TAG, ObjectStore
from lib.volumes.boxes import box_slices, whole_box
from lib.volumes.frames import viewer_frame
from lib.volumes.opened import ImageStore

BODY = (slice(2, 30), slice(4, 12), slice(1, 7))
"""One object of one grey value; the fragments disagree with it on purpose."""


def body() -> np.ndarray:
    image = np.zeros((32, 32, 8), np.float32)
    image[BODY] = 2
    image[2:30, 20:28, 1:7] = 5
    return image


def fragments() -> np.ndarray:
    """Of the body: halves 7 and 9; 4 merges the other object with a piece of background."""
    ids = np.zeros((32, 32, 8), np.uint32)
    ids[2:16, 4:12, 1:7] = 7
    ids[16:30, 4:12, 1:7] = 9
    ids[2:30, 16:28, 1:7] = 4
    return ids


def answer(clicks: Clicks, ids: Any, image: np.ndarray | None = None, **more: Any) -> np.ndarray:
    image = body() if image is None else image
    return whole(segment_clicked(replace(source(image), fragments=ids), clicks, **more), image)


def deaf(image: np.ndarray) -> Any:
    """A source whose network finds nothing beyond the click itself."""
    net = grey_network()
    net.delta_d = 0.0
    return source(image, net)


def test_one_click_takes_the_whole_fragment_that_the_network_misses() -> None:
    image = body()
    found = segment_clicked(replace(deaf(image), fragments=fragments()), Clicks([(5, 18, 3)]))
    assert found.fragments and not found.warnings
    assert np.array_equal(whole(found, image), fragments() == 4)


def test_two_positive_points_merge_two_fragments() -> None:
    image = body()
    clicks = Clicks([(5, 6, 3), (25, 6, 3)])
    found = segment_clicked(replace(deaf(image), fragments=fragments()), clicks)
    assert np.array_equal(whole(found, image), image == 2)
    assert not found.warnings
    apart = segment_clicked(
        replace(deaf(image), fragments=fragments()), Clicks([(5, 6, 3), (5, 18, 3)])
    )
    assert np.array_equal(whole(apart, image), np.isin(fragments(), [7, 4]))
    assert "2 parts that do not touch" in apart.warnings[0]


def test_a_fragment_that_the_network_mostly_covers_joins_until_it_is_denied() -> None:
    one = answer(Clicks([(5, 6, 3)]), fragments())
    assert np.array_equal(one, body() == 2)  # a split error, healed by the first click
    denied = answer(Clicks([(5, 6, 3)], [(25, 6, 3)]), fragments())
    assert np.array_equal(denied, fragments() == 7)
    few = fragments()
    few[2:30, 12:32, 1:7][few[2:30, 12:32, 1:7] == 0] = 9  # now the body is little of it
    assert np.array_equal(answer(Clicks([(5, 6, 3)]), few), fragments() == 7)


def test_a_positive_and_a_negative_point_split_one_fragment() -> None:
    image = body()
    merged = np.where(image > 0, np.uint32(3), np.uint32(0))
    merged[15:17, 12:20, 3:5] = 3  # a bridge between two objects that look different
    clicks = Clicks([(5, 6, 3)], [(5, 24, 3)])
    mask = answer(clicks, merged)
    assert mask[image == 2].all() and not mask[image == 5].any()
    same = np.where(merged > 0, np.float32(2), np.float32(0))  # the network sees no difference
    mask = answer(Clicks([(16, 6, 3)], [(16, 25, 3)]), merged, same)
    assert mask[:, 4:12][merged[:, 4:12] > 0].all() and not mask[:, 20:].any()
    three = answer(Clicks([(16, 6, 3), (3, 24, 3)], [(29, 24, 3)]), merged, same)
    assert three[image == 2].all() and three[3, 24, 3] and not three[29, 24, 3]


def test_what_hangs_on_by_a_thin_bridge_is_taken_off_a_fragment() -> None:
    image = np.full((32, 32, 8), 2, np.float32)  # the network sees one object everywhere
    merged = np.zeros(image.shape, np.uint32)
    merged[2:30, 2:12] = 3
    merged[2:30, 20:30] = 3
    near = merged > 0
    near[:, 16:] = False
    merged[15:17, 12:20] = 3  # two voxels wide
    clicks = Clicks([(8, 6, 3)])
    mask = whole(segment_clicked(replace(deaf(image), fragments=merged), clicks), image)
    assert mask[near].all() and not mask[:, 20:].any()
    both = Clicks([(8, 6, 3), (8, 24, 3)])
    mask = whole(segment_clicked(replace(deaf(image), fragments=merged), both), image)
    assert mask[near].all() and mask[2:30, 20:30].all()  # a click there brings it back
    thin = Clicks([(15, 16, 3)])  # on the bridge: nothing is known to hang on it
    mask = whole(segment_clicked(replace(deaf(image), fragments=merged), thin), image)
    assert mask[merged > 0].all()


def test_bridges_are_not_looked_for_across_sections() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    merged = np.zeros(image.shape, np.uint32)
    merged[4:20, 4:20, 2:4] = 3  # two thick sections
    flat = replace(deaf(image), fragments=merged, voxel_size_nm=(8.0, 8.0, 40.0))
    assert np.array_equal(whole(segment_clicked(flat, Clicks([(10, 10, 2)])), image), merged > 0)


def test_an_object_of_its_own_group_comes_out_of_a_fragment_of_another() -> None:
    image = body()
    around = np.zeros(image.shape, np.uint32)
    around[1:31, 2:30, :] = 6  # both objects, and more of their background
    assert np.array_equal(answer(Clicks([(5, 6, 3)]), around), image == 2)
    tight = np.where(image == 2, np.uint32(6), np.uint32(0))
    tight[2:30, 12:15, 1:7] = 6  # mostly the object: what is told about it is kept
    assert np.array_equal(answer(Clicks([(5, 6, 3)]), tight), tight == 6)


def test_points_of_two_groups_mean_all_of_the_fragment() -> None:
    image = np.zeros((32, 32, 8), np.float32)
    image[BODY] = 2
    image[20:23, 20:23, 3] = 5
    ids = np.zeros(image.shape, np.uint32)
    ids[1:31, 2:30, :] = 6
    inside, beyond = (5, 6, 3), (21, 21, 3)
    assert np.array_equal(answer(Clicks([inside, beyond]), ids, image), ids == 6)
    most = answer(Clicks([inside, (25, 6, 3), beyond]), ids, image)
    assert np.array_equal(most, image > 0)


def test_a_cut_takes_nothing_from_a_fragment_without_negative_points() -> None:
    image = np.full((32, 32, 8), 2, np.float32)
    ids = np.full((32, 32, 8), 7, np.uint32)
    ids[16:] = 9
    mask = answer(Clicks([(2, 16, 4), (30, 2, 4)], [(17, 16, 4)]), ids, image)
    assert mask[:16].all() and mask[30, 2, 4] and not mask[17, 16, 4]


def test_voxels_of_no_fragment_are_the_networks() -> None:
    ids = fragments()
    ids[2:30, 10:12] = 0
    ids[5:10, 4:6, 3] = UNKNOWN
    assert np.array_equal(answer(Clicks([(15, 8, 3)]), ids), body() == 2)
    assert np.array_equal(answer(Clicks([(15, 10, 3)]), ids), body() == 2)
    none = np.zeros_like(ids)
    for clicks in (Clicks([(5, 6, 3)]), Clicks([(5, 6, 3)], [(25, 6, 3)])):
        alone = whole(segment_clicked(source(body()), clicks), body())
        assert np.array_equal(answer(clicks, none), alone)


def test_an_object_is_followed_to_the_limit() -> None:
    image = np.zeros((160, 40, 8), np.float32)
    ids = np.zeros(image.shape, np.uint32)
    ids[2:158, 10:16, 2:6] = 2**31 + 5
    near = replace(deaf(image), fragments=ids)
    inference = InferenceSettings(
        click_window=(32, 32, 8), click_window_limit=(160, 40, 8), precision="float32"
    )
    found = segment_clicked(replace(near, inference=inference), Clicks([(10, 12, 3)]))
    assert np.array_equal(whole(found, image), ids > 0) and found.windows == 1
    cut = segment_clicked(near, Clicks([(10, 12, 3)]))  # 96 voxels, less what lies outside
    assert cut.warnings == ("the object goes on beyond the limit of the click window",)
    assert whole(cut, image)[2:90, 12, 3].all() and not whole(cut, image)[96:].any()
    far = segment_clicked(replace(near, inference=inference), Clicks([(10, 12, 3)], [(150, 12, 3)]))
    mask = whole(far, image)  # denied far outside the window of the click
    assert mask[2:70, 12, 3].all() and not mask[100:].any()


def test_every_click_list_has_one_answer_whatever_came_before() -> None:
    image, ids = body(), fragments()
    lists = [
        Clicks([(5, 6, 3)]),
        Clicks([(5, 6, 3)], [(25, 6, 3)]),
        Clicks([(5, 6, 3), (20, 6, 3)], [(25, 6, 3)]),
        Clicks([(5, 18, 3)], [(5, 24, 3)]),
    ]
    fresh = [answer(c, ids) for c in lists]
    assert len({f.tobytes() for f in fresh}) == len(lists)
    shared = replace(source(image), fragments=ids)
    for i in (3, 0, 2, 1, 0, 3, 1, 2):
        assert np.array_equal(whole(segment_clicked(shared, lists[i]), image), fresh[i])


def test_edits_sections_and_empty_requests() -> None:
    image, ids = body(), fragments()
    edited = ids == 7
    edited[2:5] = False
    start = StartingMask(edited, whole_box((32, 32, 8)))
    more = answer(Clicks([(8, 6, 3), (25, 6, 3)]), ids, start=start)
    assert np.array_equal(more, edited | (ids == 9))
    flat = answer(Clicks([(5, 6, 3)]), ids, section=3)
    assert np.array_equal(flat, (image == 2) & (np.arange(8) == 3))
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
    nib.save(nib.Nifti1Image(fragments(), np.eye(4)), path)
    started, told = ask()
    assert told["fragments"] is True and told["warnings"] == []
    assert started[(fragments() == 4) & (body() == 5)].all() and not started[fragments() != 4].any()
    nib.save(nib.Nifti1Image(fragments()[1:], np.eye(4)), path)  # of another image
    other, told = ask()
    assert told["fragments"] is False and "(31, 32, 8)" in told["warnings"][0]
    path.write_bytes(path.read_bytes()[:60])
    torn, told = ask()
    assert told["fragments"] is False and "cannot be read" in told["warnings"][0]
    assert np.array_equal(other, alone) and np.array_equal(torn, alone)
