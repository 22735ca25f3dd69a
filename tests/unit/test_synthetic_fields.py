"""Curves and random fields have the sizes in nm that they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.synthetic import noise
from lib.synthetic.curves import (
    polar_around,
    random_direction,
    random_walk,
    through,
    with_frame,
)
from lib.synthetic.noise import Frame, grain, smooth_noise, tissue_positions

ISOTROPIC = Frame((48, 40, 36), (10.0, 10.0, 10.0), 1.0)
SECTIONS = Frame((40, 40, 12), (5.0, 5.0, 50.0), 1.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_directions_are_unit_vectors_of_no_preference() -> None:
    found = np.array([random_direction(rng(i)) for i in range(400)])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert np.abs(found.mean(0)).max() < 0.15


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.3), st.floats(50, 2000))
def test_walks_have_even_steps_and_the_length_asked_for(
    seed: int, bend: float, length: float
) -> None:
    start, heading = np.array([10.0, 20.0, 30.0]), random_direction(rng(seed))
    points = random_walk(start, heading, length, 25.0, bend, rng(seed))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(steps, 25.0)
    assert len(points) >= 2 and (points[0] == start).all()
    assert abs(steps.sum() - length) <= 25.0
    both = through(start, heading, length, 25.0, bend, rng(seed))
    np.testing.assert_allclose(np.linalg.norm(np.diff(both, axis=0), axis=1), 25.0)
    assert np.linalg.norm(both - start, axis=1).min() == 0.0, "it goes through its middle"


def test_without_bends_a_walk_is_straight() -> None:
    points = random_walk(np.zeros(3), np.array([0.0, 0.6, 0.8]), 100.0, 10.0, 0.0, rng())
    np.testing.assert_allclose(points, np.outer(np.arange(11) * 10.0, [0.0, 0.6, 0.8]), atol=1e-9)


def test_the_frame_stands_square_on_the_curve_and_hardly_turns() -> None:
    curve = with_frame(random_walk(np.zeros(3), np.eye(3)[2], 2000.0, 20.0, 0.1, rng(3)))
    for one in (curve.tangent, curve.normal, curve.binormal):
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-9)
    np.testing.assert_allclose((curve.tangent * curve.normal).sum(1), 0, atol=1e-9)
    turned = (curve.normal[1:] * curve.normal[:-1]).sum(1)
    assert turned.min() > 0.8


def test_polar_coordinates_around_a_straight_line() -> None:
    axes = [(np.arange(n) + 0.5) * 10.0 for n in (20, 20, 20)]
    position = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
    line = np.stack([np.full(50, 100.0), np.full(50, 100.0), np.linspace(-20, 225, 50)], 1)
    found = polar_around(with_frame(line), position, 40.0)
    x, y, z = position.reshape(-1, 3)[found.index].T
    np.testing.assert_allclose(found.radius, np.hypot(x - 100, y - 100), rtol=1e-4)
    np.testing.assert_allclose(found.along, z + 20, rtol=1e-3, atol=0.05)
    everywhere = np.hypot(*(position[..., :2] - 100).reshape(-1, 2).T)
    missed = np.setdiff1d(np.flatnonzero(everywhere < 39.0), found.index)
    assert not len(missed), "all near voxels are found"
    offset = np.stack([x - 100, y - 100, 0 * z], 1)
    curve = with_frame(line)
    expected = np.arctan2(offset @ curve.binormal[0], offset @ curve.normal[0])
    np.testing.assert_allclose(np.exp(1j * found.angle), np.exp(1j * expected), atol=1e-4)


def test_smooth_noise_is_centred_of_unit_spread_and_smooth() -> None:
    frame = Frame((96, 96, 96), (10.0, 10.0, 10.0), 1.0)
    field = smooth_noise(frame, 60.0, rng())
    assert field.shape == frame.shape and field.dtype == np.float32
    assert abs(field.mean()) < 0.1 and 0.85 < field.std() < 1.15
    assert np.abs(np.diff(field, axis=0)).std() < 0.35 * field.std()


def test_the_wavelength_is_in_nm_whatever_the_voxels() -> None:
    def correlation(voxel: float, lag_nm: float) -> float:
        count = int(1200 / voxel)
        field = smooth_noise(Frame((count, count, 4), (voxel, voxel, 40.0), 1.0), 80.0, rng(1))
        lag = round(lag_nm / voxel)
        return float(np.corrcoef(field[lag:].ravel(), field[:-lag].ravel())[0, 1])

    for lag in (20.0, 40.0, 80.0):
        assert correlation(4.0, lag) == pytest.approx(correlation(10.0, lag), abs=0.15)
    assert correlation(4.0, 20.0) > 0.8 > correlation(4.0, 80.0)


def test_grain_has_unit_spread_and_its_size() -> None:
    for frame in (ISOTROPIC, SECTIONS):
        field = grain(frame, 20.0, rng())
        assert field.std() == pytest.approx(1.0, abs=1e-3) and abs(field.mean()) < 0.2
    blurred, white = grain(ISOTROPIC, 20.0, rng()), grain(ISOTROPIC, 0.5, rng())
    near, apart = (np.corrcoef(f[1:].ravel(), f[:-1].ravel())[0, 1] for f in (blurred, white))
    assert near > 0.8 > abs(apart)


def tissue_bend(frame: Frame) -> np.ndarray:
    axes = [(np.arange(n) + 0.5) * v for n, v in zip(frame.shape, frame.voxel_nm, strict=True)]
    return tissue_positions(frame, rng()) - np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def test_tissue_is_bent_everywhere() -> None:
    bend = tissue_bend(ISOTROPIC)
    assert bend.shape == (*ISOTROPIC.shape, 3)
    assert 5.0 < bend.std() < 120.0 and np.abs(bend).max() < 500.0


def test_thick_sections_slip_as_a_whole_and_in_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    stiff = lambda frame, *_: np.zeros(frame.shape, np.float32)  # noqa: E731
    monkeypatch.setattr(noise, "smooth_noise", stiff)
    bend = tissue_bend(SECTIONS)
    assert np.ptp(bend, axis=(0, 1)).max() < 0.01, "each section moves as a whole"
    assert np.ptp(bend[0, 0], axis=0)[:2].min() > 1.0 > np.abs(bend[..., 2]).max()
    assert np.abs(tissue_bend(ISOTROPIC)).max() < 0.01
    assert SECTIONS.sectioned and not ISOTROPIC.sectioned
    assert not Frame((40, 40, 1), (5.0, 5.0, 50.0), 1.0).sectioned, "a single one cannot slip"


def test_small_volumes_count_as_larger_ones_of_smaller_cells() -> None:
    natural, small = Frame((100, 100, 100), (10.0,) * 3, 1.0), Frame((50, 50, 50), (10.0,) * 3, 0.5)
    assert natural.volume_um3 == pytest.approx(1.0) == small.volume_um3
    assert SECTIONS.lateral_nm == 5.0 and SECTIONS.extent_nm.tolist() == [200.0, 200.0, 600.0]
