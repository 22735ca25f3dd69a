"""Filter responses: the same whatever the boxes, within thick sections, of the scale of things."""

import numpy as np
import pytest
from adaptation_cases import network

from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.filters import (
    COUNT,
    EACH,
    LEAST_SIGMA,
    SCALES_NM,
    filter_responses,
    responses_at,
)
from lib.volumes.boxes import box_slices

CUBES, THICK, COARSE = (10.0, 10.0, 10.0), (9.2, 9.2, 50.0), (100.0, 100.0, 100.0)
BOXES = (((0, 30), (20, 50), (2, 5)), ((40, 70), (0, 33), (0, 4)), ((10, 11), (5, 6), (3, 4)))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("voxel", [CUBES, THICK, COARSE])
def test_any_tiling_gives_the_same_responses(voxel: tuple[float, float, float]) -> None:
    image = noise(70, 60, 40 if voxel == CUBES else 6)
    whole = filter_responses(image, voxel)
    assert whole.shape == (COUNT, *image.shape)
    for box in BOXES:
        part = responses_at(lambda b: image[box_slices(b)].copy(), image.shape, box, voxel)
        np.testing.assert_allclose(part, whole[(slice(None), *box_slices(box))], atol=1e-5)


def test_thick_sections_are_filtered_one_by_one() -> None:
    image = noise(40, 40, 4)
    other = image.copy()
    other[..., 2] = 0.5
    one, two = filter_responses(image, THICK), filter_responses(other, THICK)
    np.testing.assert_array_equal(one[..., [0, 1, 3]], two[..., [0, 1, 3]])
    thin = filter_responses(image, CUBES)
    assert not np.allclose(thin[..., 3], filter_responses(other, CUBES)[..., 3])


def test_a_line_is_found_by_curvature_at_its_own_scale() -> None:
    image = np.zeros((80, 80, 1), np.float32)
    image[39:41] = 1.0
    found = filter_responses(image, THICK)
    bent = found[2::EACH], found[3::EACH]  # the larger curvature and the smaller one
    across = [abs(low[40, 40, 0]) for low in bent[1]]
    assert across[0] > across[2] > 0, "a thin line bends most at the finest scale"
    assert all(
        abs(low[40, 40, 0]) > 5 * abs(high[40, 40, 0]) for high, low in zip(*bent, strict=True)
    )


def test_responses_of_windows_are_kept() -> None:
    image = (255 * noise(40, 30, 4)).astype(np.uint8)
    cache = FeatureCache(2**26)
    source = FeatureSource(network(), image, "float32", Shelf(cache, "weights", "image"))
    boxes = [((0, 16), (0, 16), (0, 4)), ((16, 32), (8, 24), (0, 4))]
    found = source.responses(boxes, THICK)
    assert found.shape == (2, 16, 16, 4, COUNT)
    misses = cache.misses
    again = source.responses(boxes, THICK)
    assert (again == found).all() and cache.misses == misses
    bare = FeatureSource(network(), image, "float32").responses(boxes, THICK)
    assert (bare == found).all(), "kept or not, they are the same numbers"


def waves(shape: tuple[int, int, int]) -> np.ndarray:
    axes, rng = (
        np.meshgrid(*(np.arange(n) / 5 for n in shape), indexing="ij"),
        np.random.default_rng(0),
    )
    found = sum(np.sin(a * rng.uniform(0.5, 2.0) + rng.uniform(0, 6)) for a in axes)
    return (0.5 + 0.15 * found).astype(np.float32)


def test_an_even_image_has_its_value_and_no_derivatives() -> None:
    found = filter_responses(np.full((9, 8, 7), 0.3, np.float32), CUBES)
    np.testing.assert_allclose(found[[0, EACH]], 0.3, atol=1e-6)
    np.testing.assert_allclose(found[1:EACH], 0.0, atol=1e-5)


@pytest.mark.parametrize("size", [10.0, 5.0, 20.0])
def test_a_ramp_and_a_parabola_by_hand(size: float) -> None:
    sigma = max(SCALES_NM[0] / size, LEAST_SIGMA[0])  # of the first scale, in voxels
    x = np.broadcast_to(np.arange(81, dtype=np.float32)[:, None, None], (81, 5, 5))
    ramp = filter_responses(0.01 * x, (size,) * 3)[:, 40, 2, 2]
    assert ramp[1] == pytest.approx(0.01 * sigma, rel=1e-4) and np.abs(ramp[2:4]).max() < 1e-5
    assert ramp[4] == pytest.approx(0.01 * sigma, rel=1e-3) and ramp[5] < 1e-4
    bowl = filter_responses(0.001 * (x - 40) ** 2, (size,) * 3)[:, 40, 2, 2]
    assert bowl[2] == pytest.approx(0.002 * sigma**2, rel=1e-3)
    assert abs(bowl[1]) < 1e-6 and abs(bowl[3]) < 1e-5


def test_curvatures_are_the_eigenvalues_of_numpy() -> None:
    found = filter_responses(waves((20, 18, 16)), CUBES)
    smooth = found[0].astype(np.float64)
    slopes = [np.gradient(smooth, axis=a) for a in range(3)]
    hessian = np.empty((*smooth.shape, 3, 3))
    for a in range(3):
        for b in range(3):
            hessian[..., a, b] = np.gradient(slopes[a], axis=b)
        hessian[..., a, a] = np.roll(smooth, -1, a) + np.roll(smooth, 1, a) - 2 * smooth
    inner = (slice(3, -3),) * 3
    expected = np.linalg.eigvalsh(hessian[inner])[..., [2, 0]]
    curved = np.moveaxis(found[2:4], 0, -1)[inner]
    np.testing.assert_allclose(curved, expected, atol=2e-6, rtol=1e-3)
    length = np.sqrt(sum(s[10, 9, 8] ** 2 for s in slopes))
    assert found[1, 10, 9, 8] == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize("voxel", [CUBES, THICK, (8.0, 8.0, 14.0)])
def test_mirrored_images_have_mirrored_responses(voxel: tuple[float, float, float]) -> None:
    image = waves((14, 12, 9))
    for axis in range(3):
        mirrored = np.flip(filter_responses(np.flip(image, axis), voxel), axis + 1)
        np.testing.assert_allclose(mirrored, filter_responses(image, voxel), atol=1e-4)
