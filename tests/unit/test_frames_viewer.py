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
