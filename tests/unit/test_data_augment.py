"""Augmentation: labels move with the image, intensities stay in range."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import HIERARCHY, cells, classes_of
from hypothesis import given
from hypothesis import strategies as st

from lib.data.appearance import change_appearance
from lib.data.items import Patch
from lib.data.warp import Turn, draw_turn, draw_warp


def patch_of(shape: tuple[int, int, int]) -> Patch:
    ids = cells(shape)
    return Patch((ids > 0).astype(np.float32), classes_of(ids), ids, (4.0, 5.0, 30.0), "p")


@given(st.integers(0, 10_000), st.booleans())
def test_a_turn_gives_the_wanted_shape_and_turns_the_voxel_size(seed: int, isotropic: bool) -> None:
    generator = np.random.default_rng(seed)
    turn = draw_turn((12, 10, 8), (40, 40, 40), isotropic, generator)
    turned = turn.apply(patch_of(turn.source_extent((12, 10, 8))))
    assert turned.image.shape == turned.class_sets.shape == turned.instance.shape == (12, 10, 8)
    assert turned.voxel_size_nm == tuple((4.0, 5.0, 30.0)[a] for a in turn.axes)
    if not isotropic:
        assert turn.axes[2] == 2, "sections stay sections"
    np.testing.assert_array_equal(turned.image > 0, turned.instance > 0)


def test_a_turn_is_what_its_fields_say() -> None:
    patch = patch_of((6, 5, 4))
    turned = Turn((1, 0, 2), (True, False, True)).apply(patch)
    np.testing.assert_array_equal(turned.instance, patch.instance.transpose(1, 0, 2)[::-1, :, ::-1])


def test_turns_that_do_not_fit_the_item_are_not_drawn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        turn = draw_turn((20, 20, 8), (30, 30, 8), True, generator)
        assert turn.source_extent((20, 20, 8))[2] == 8


@pytest.mark.parametrize("sections_move", [False, True])
def test_a_warp_moves_image_and_labels_together(sections_move: bool) -> None:
    for seed in range(8):
        generator = np.random.default_rng(seed)
        warp = draw_warp((48, 40, 6), sections_move, generator)
        patch = patch_of((48 + 2 * warp.margin, 40 + 2 * warp.margin, 6))
        warped = warp.apply(patch, HIERARCHY.unknown)
        assert warped.image.shape == (48, 40, 6)
        known = warped.instance >= 0
        assert known.mean() > 0.8
        assert (warped.class_sets[~known] == HIERARCHY.unknown).all()
        # Half-way between voxels the interpolated image rounds to the nearest label.
        agree = (warped.image > 0.5) == (warped.instance > 0)
        assert agree[known].mean() > 0.9
        np.testing.assert_array_equal(warped.class_sets[known], classes_of(warped.instance)[known])
        assert warped.voxel_size_nm == (4.0 * warp.scale, 5.0 * warp.scale, 30.0)


def test_labels_beyond_the_patch_are_unknown() -> None:
    warp = draw_warp((32, 32, 4), True, np.random.default_rng(1))
    far = warp.__class__(warp.margin, warp.field + 1000, warp.shifts, warp.scale)
    warped = far.apply(patch_of((32 + 2 * warp.margin,) * 2 + (4,)), HIERARCHY.unknown)
    assert (warped.instance == -1).all() and (warped.class_sets == HIERARCHY.unknown).all()


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([1, 4, 9]))
def test_appearance_stays_in_range_and_leaves_its_input(
    seed: int, sections: bool, depth: int
) -> None:
    image = np.random.default_rng(0).random((20, 20, depth), np.float32)
    kept = image.copy()
    changed = change_appearance(image, sections, np.random.default_rng(seed))
    again = change_appearance(image, sections, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(changed, again)
    assert changed.dtype == np.float32 and changed.min() >= 0 and changed.max() <= 1


def test_appearance_does_change_and_sometimes_loses_a_section() -> None:
    image = np.random.default_rng(0).random((20, 20, 9), np.float32)
    lost = moved = 0
    for seed in range(100):
        changed = change_appearance(image, True, np.random.default_rng(seed))
        lost += bool((changed.std((0, 1)) == 0).any())
        moved += not np.array_equal(changed, image)
    assert 3 < lost < 30 and moved > 80


def test_strength_zero_leaves_contrast_and_brightness_alone() -> None:
    grey = np.full((8, 8, 4), 0.4, np.float32)  # few sections: nothing is damaged
    for seed in range(30):
        means = [
            float(change_appearance(grey, True, np.random.default_rng(seed), s).mean())
            for s in (0.0, 0.3, 1.0)
        ]
        still, little, much = (abs(mean - 0.4) for mean in means)
        assert still < 0.01  # noise alone
        assert little <= much + 0.01
    assert any(
        abs(change_appearance(grey, True, np.random.default_rng(seed)).mean() - 0.4) > 0.05
        for seed in range(30)
    )


def test_inverted_and_shaded_patches_keep_the_structure() -> None:
    rng = np.random.default_rng(4)
    image = rng.random((12, 12, 4), dtype=np.float32) * 0.6 + 0.2
    for seed in range(20):
        plain, inverted = (
            change_appearance(image, True, np.random.default_rng(seed), 0.0, share)
            for share in (0.0, 1.0)
        )
        np.testing.assert_allclose(inverted, 1.0 - plain, atol=1e-6)
    means = []
    for seed in range(40):
        shaded = change_appearance(np.full((16, 16, 4), 0.5, np.float32), False,
                                   np.random.default_rng(seed), 1.0)  # fmt: skip
        assert shaded.min() >= 0 and shaded.max() <= 1
        halves = shaded[:8].mean() - shaded[8:].mean(), shaded[:, :8].mean() - shaded[:, 8:].mean()
        means.append(np.abs(halves).max())
    assert 0 < sum(m > 0.02 for m in means) < 20, "some patches are darker on one side"
