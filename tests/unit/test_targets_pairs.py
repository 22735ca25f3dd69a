"""The partners of a voxel."""

from lib.targets.pairs import NEAREST, pair_offsets


def test_long_range_partners_lie_equally_far_in_nm() -> None:
    offsets = pair_offsets((4.0, 4.0, 12.0), (3, 9), (64, 64, 16))
    assert offsets == (*NEAREST, (3, 0, 0), (0, 3, 0), (9, 0, 0), (0, 9, 0), (0, 0, 3))


def test_partners_beyond_half_a_window_and_of_flat_images_are_left_out() -> None:
    offsets = pair_offsets((4.0, 4.0, 4.0), (3, 27), (64, 40, 1))
    assert offsets == ((1, 0, 0), (0, 1, 0), (3, 0, 0), (0, 3, 0), (27, 0, 0))
