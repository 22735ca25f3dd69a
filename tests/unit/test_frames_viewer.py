"""Clicks land on the voxel they were made on, whatever the file's frame."""

from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.volumes.boxes import box_slices
from lib.volumes.frames import viewer_frame


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


AFFINES = [
    np.eye(3)[list(order)] * signs
    for order in permutations(range(3))
    for signs in ((1, 1, 1), (-1, 1, -1))
] + [rotation(20.0), rotation(-75.0) @ np.diag([1, -1, 1])]


@pytest.mark.parametrize("axes", AFFINES)
@pytest.mark.parametrize("sizes", [(4.6, 4.6, 50.0), (50.0, 4.6, 4.6), (8.0, 8.0, 8.0)])
def test_a_planted_voxel_is_where_the_click_says(
    axes: np.ndarray, sizes: tuple[float, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shape = (13, 9, 7)
    planted = tuple(int(rng.integers(n)) for n in shape)
    image = np.zeros(shape, np.uint8)
    image[planted] = 200
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(sizes)
    affine[:3, 3] = (100.0, -20.0, 3.0)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "image.nii")
    loaded = nib.load(tmp_path / "image.nii")
    voxel = np.linalg.norm(loaded.affine[:3, :3], axis=0)  # a viewer sends [i, j, k] as loaded
    frame = viewer_frame(loaded.shape, voxel)
    point = frame.to_network([planted])
    seen = frame.view(np.asarray(loaded.dataobj))
    whole = seen[:, :, :]
    assert np.argwhere(whole == 200).tolist() == point.tolist()
    assert frame.to_viewer(point).tolist() == [list(planted)]
    longest = np.argmax(frame.network_voxel_size_nm)
    assert longest == 2 or np.ptp(sizes) == 0
    back = frame.mask_to_viewer(whole, tuple((0, n) for n in frame.network_shape))
    assert np.array_equal(back, image)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    sizes=st.tuples(*[st.sampled_from([1.0, 2.5, 4.0, 10.0, 50.0])] * 3),
    finest=st.sampled_from([0.0, 4.0, 8.0]),
    seed=st.integers(0, 999),
)
def test_boxes_masks_and_points_agree(
    shape: tuple[int, int, int], sizes: tuple[float, float, float], finest: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = viewer_frame(shape, sizes, finest)
    image = rng.integers(0, 255, shape).astype(np.uint8)
    seen = frame.view(image)
    low = [int(rng.integers(n)) for n in frame.network_shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, frame.network_shape, strict=True)]
    box = tuple(zip(low, high, strict=True))
    part = seen[box_slices(box)]
    assert part.shape == tuple(b - a for a, b in box)
    assert np.allclose(part, seen[:, :, :][box_slices(box)])
    # Every viewer voxel of the box lies in the network voxel whose value it was given.
    inside = frame.viewer_box(box)
    numbers = np.arange(part.size).reshape(part.shape)
    spread = frame.mask_to_viewer(numbers, box)
    assert spread.shape == tuple(b - a for a, b in inside)
    places = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in inside], indexing="ij"), -1)
    network = frame.to_network(places.reshape(-1, 3)) - np.array(low)
    assert np.array_equal(numbers[tuple(network.T)], spread.ravel())
    assert frame.network_box(inside) == box
    voxels = np.array([[int(rng.integers(n)) for n in frame.network_shape]])
    assert np.array_equal(frame.to_network(frame.to_viewer(voxels)), voxels) or any(
        n % b for n, b in zip(np.array(shape)[list(frame.order)], frame.bins, strict=True)
    )


def test_binning_averages_and_masks_follow_the_majority() -> None:
    frame = viewer_frame((4, 5, 2), (2.0, 2.0, 40.0), finest_nm=4.0)
    assert frame.bins == (2, 2, 1) and frame.network_shape == (2, 3, 2)
    assert frame.network_voxel_size_nm == (4.0, 4.0, 40.0)
    image = np.zeros((4, 5, 2), np.uint8)
    image[0, 0, 1] = 100
    image[3, 4, 0] = 60
    seen = frame.view(image)[:, :, :]
    assert seen[0, 0, 1] == 25.0 and seen[1, 2, 0] == 30.0 and seen.sum() == 55.0
    mask = np.zeros((4, 5, 2), bool)
    mask[:2, :3, 0] = True
    assert np.argwhere(frame.mask_to_network(mask)).tolist() == [[0, 0, 0], [0, 1, 0]]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    sizes=st.tuples(*[st.sampled_from([20.0, 25.0, 33.0, 90.0])] * 3),
    most=st.sampled_from([2, 3]),
    seed=st.integers(0, 999),
)
def test_split_boxes_masks_and_points_agree(
    shape: tuple[int, int, int], sizes: tuple[float, float, float], most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = viewer_frame(shape, sizes, 10.0, most)
    image = rng.integers(0, 255, shape).astype(np.uint8)
    seen, all_of_it = frame.view(image), tuple((0, n) for n in frame.network_shape)
    low = [int(rng.integers(n)) for n in frame.network_shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, frame.network_shape, strict=True)]
    box = tuple(zip(low, high, strict=True))
    whole = seen[box_slices(all_of_it)]
    assert whole.shape == frame.network_shape
    assert np.allclose(seen[box_slices(box)], whole[box_slices(box)]), "windows agree"
    # A voxel, its centre in the network's frame, and back.
    voxels = np.argwhere(np.ones(shape))
    centres = frame.to_network(voxels)
    assert np.array_equal(frame.to_viewer(centres), voxels)
    assert (centres < np.array(frame.network_shape)).all()
    # Labels go there and come back; of a part too.
    labels = rng.integers(0, 9, shape)
    there = frame.labels_to_network(labels, all_of_it)
    assert np.array_equal(there[tuple(centres.T)], labels.ravel())
    assert np.array_equal(frame.mask_to_viewer(there, all_of_it), labels)
    inside = frame.viewer_box(box)
    part = frame.labels_to_network(labels[box_slices(inside)], box)
    assert np.array_equal(part, there[box_slices(box)])
    assert np.array_equal(frame.mask_to_viewer(part, box), labels[box_slices(inside)])
    assert np.array_equal(frame.mask_to_network(labels > 4), there > 4)
    assert frame.viewer_box(frame.network_box(inside)) == inside


def test_coarse_voxels_are_split_and_what_lies_between_is_interpolated() -> None:
    frame = viewer_frame((3, 4, 5), (20.0, 20.0, 20.0), 10.0, 3)
    assert frame.splits == (2, 2, 2) and frame.network_shape == (6, 8, 10)
    ramp = np.broadcast_to(np.array([0, 40, 80], np.uint8)[:, None, None], (3, 4, 5))
    seen = frame.view(ramp)[:, :, :]
    assert seen[:, 0, 0].tolist() == [0, 10, 30, 50, 70, 80]
    assert np.ptp(seen, axis=(1, 2)).max() == 0
    assert frame.resampling() == {
        "network_voxel_size_nm": [10.0, 10.0, 10.0], "binned": [1, 1, 1], "split": [2, 2, 2]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "sizes", "splits"),
    [
        ((9, 9, 9), (19.0, 19.0, 19.0), (1, 1, 1)),
        ((9, 9, 9), (35.0, 35.0, 40.0), (3, 3, 3)),
        ((9, 9, 9), (20.0, 20.0, 50.0), (2, 2, 1)),
        ((9, 9, 9), (50.0, 20.0, 20.0), (2, 2, 1)),  # sections along x come last
        ((9, 9, 9), (59.0, 59.0, 59.0), (3, 3, 3)),
        ((9, 9, 9), (60.0, 60.0, 60.0), (1, 1, 1)),  # would stay too coarse
        ((9, 9, 1), (20.0, 20.0, 20.0), (1, 1, 1)),  # a section
        ((2**10, 2**10, 2**7), (20.0, 20.0, 20.0), (1, 1, 1)),  # maps would be too large
    ],
)
def test_what_is_split(
    shape: tuple[int, int, int], sizes: tuple[float, ...], splits: tuple[int, ...]
) -> None:
    assert viewer_frame(shape, sizes, 10.0, 3).splits == splits
    assert viewer_frame(shape, sizes, 10.0).splits == (1, 1, 1)
    assert viewer_frame(shape, sizes, 0.0, 3).splits == (1, 1, 1)


def test_a_reply_tells_the_resampling_along_the_viewers_axes() -> None:
    frame = viewer_frame((9, 40, 40), (40.0, 2.4, 4.8), 10.0, 3)
    assert frame.order == (1, 2, 0) and frame.bins == (4, 2, 1)
    assert frame.resampling() == {
        "network_voxel_size_nm": [40.0, 9.6, 9.6], "binned": [1, 4, 2], "split": [1, 1, 1]
    }  # fmt: skip


def test_points_outside_stay_outside_and_nonsense_is_refused() -> None:
    frame = viewer_frame((4, 5, 6), (2.0, 2.0, 2.0), finest_nm=4.0)
    assert frame.to_network([[-1, 5, 6]]).tolist() == [[-1, 2, 3]]
    assert viewer_frame((1, 5, 6), (1.0, 1.0, 1.0)).order == (1, 2, 0)
    with pytest.raises(ValueError, match="three positive numbers"):
        viewer_frame((4, 5, 6), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="three axes"):
        viewer_frame((4, 5), (1.0, 1.0))
    with pytest.raises(ValueError, match="expected"):
        frame.view(np.zeros((4, 5, 7)))
