"""The intensity window of an image, and what it makes of grey values."""

from __future__ import annotations

import numpy as np
import pytest

from lib.volumes.contrast import intensity_window, normalize


def test_the_intensity_window_leaves_out_padding_and_outliers():
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(120, 10, (300, 260, 6)), 1, 254).astype(np.uint8)
    image[:80] = 0
    image[-40:] = 255
    low, high = intensity_window(image)
    assert 85 < low < 105 and 135 < high < 155


def test_constant_images_have_a_window():
    assert intensity_window(np.full((5, 6, 7), 9, np.uint8)) == (9.0, 10.0)
    assert intensity_window(np.zeros((5, 6, 1), np.uint16)) == (0.0, 1.0)


def test_normalize_maps_the_window_and_clips():
    got = normalize(np.array([0, 50, 75, 100, 255], np.uint8), (50.0, 100.0))
    assert got.dtype == np.float32 and got.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_the_window_reads_a_bounded_part_of_a_large_image():
    class Huge:
        shape = (100_000, 100_000, 50_000)
        read = 0

        def __getitem__(self, index):
            part = np.ones(
                [len(range(n)[i]) for i, n in zip(index, self.shape, strict=True)], np.uint8
            )
            Huge.read += part.size
            return part

    intensity_window(Huge())
    assert 0 < Huge.read <= 2**21


def test_a_picture_of_one_bit_is_black_and_white():
    image = np.random.default_rng(0).integers(0, 2, (40, 40, 1)).astype(bool)
    window = intensity_window(image)
    assert window == (0.0, 1.0)
    assert set(np.unique(normalize(image, window))) == {0.0, 1.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_leave_the_others_as_they_are(bad):
    image = np.random.default_rng(0).normal(100, 10, (40, 40, 3)).astype(np.float32)
    spoiled = image.copy()
    spoiled[5:9, 5, 1] = bad
    window = intensity_window(spoiled)
    assert window == pytest.approx(intensity_window(image), abs=2)
    shown = normalize(spoiled, window)
    assert np.isfinite(shown).all() and (shown[5:9, 5, 1] == (1.0 if bad == np.inf else 0.0)).all()
    good = np.isfinite(spoiled)
    assert (shown[good] == normalize(image, window)[good]).all()
    assert intensity_window(np.full((4, 4, 1), bad, np.float32)) == (0.0, 1.0)
