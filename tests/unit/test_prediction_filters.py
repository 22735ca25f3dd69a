"""Filter responses: the same whatever the boxes, within thick sections, of the scale of things."""

import numpy as np
import pytest
from adaptation_cases import network

from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.filters import COUNT, EACH, filter_responses, responses_at
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
        np.testing.assert_allclose(part, whole[(slice(None), *box_slices(box))], atol=1e-6)


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
    bent = filter_responses(image, THICK)[2::EACH], filter_responses(image, THICK)[3::EACH]
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
