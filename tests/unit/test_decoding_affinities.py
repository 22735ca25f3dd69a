"""Affinities and the offsets they are taken at."""

import numpy as np
import pytest
import torch

from lib.decoding.affinities import NEAREST, embedding_affinities, pair_offsets


def test_long_range_partners_lie_equally_far_in_nm() -> None:
    offsets = pair_offsets((4.0, 4.0, 12.0), (3, 9), (64, 64, 16))
    assert offsets == (*NEAREST, (3, 0, 0), (0, 3, 0), (9, 0, 0), (0, 9, 0), (0, 0, 3))


def test_partners_beyond_half_a_window_and_of_flat_images_are_left_out() -> None:
    offsets = pair_offsets((4.0, 4.0, 4.0), (3, 27), (64, 40, 1))
    assert offsets == ((1, 0, 0), (0, 1, 0), (3, 0, 0), (0, 3, 0), (27, 0, 0))


def test_affinities_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(2, 3, 4, 3, 5))
    offsets = [(1, 0, 0), (0, 2, 0), (0, 0, 3), (0, 3, 0)]
    found = embedding_affinities(torch.from_numpy(e), offsets, 2.0).numpy()
    for b, a, *v in np.ndindex(*found.shape):
        w = [i + o for i, o in zip(v, offsets[a], strict=True)]
        expected = 0.0
        if all(i < n for i, n in zip(w, e.shape[2:], strict=True)):
            distance = np.linalg.norm(e[(b, slice(None), *v)] - e[(b, slice(None), *w)])
            expected = float(np.clip(1 - distance / 2.0, -1, 1))
        assert found[(b, a, *v)] == pytest.approx(expected, abs=1e-12)


def test_affinities_do_not_depend_on_the_frame_of_the_embedding() -> None:
    torch.manual_seed(0)
    e = torch.randn(1, 4, 5, 5, 5, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    turned = torch.einsum("ij,bjxyz->bixyz", turn, e) + 3.0
    offsets = [(1, 0, 0), (0, 0, 2)]
    torch.testing.assert_close(
        embedding_affinities(turned, offsets, 1.5), embedding_affinities(e, offsets, 1.5)
    )
