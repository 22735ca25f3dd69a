"""Voxels of edits on disk: the same again, kept once, and never taken for others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.proofread.payloads import SUFFIX, Payloads
from lib.volumes.errors import VolumeError


def mask_of(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.4


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (8, 4, 2), (17, 1, 3)])
def test_masks_come_back_voxel_by_voxel(tmp_path, shape):
    kept, mask = Payloads(tmp_path / "p"), mask_of(shape)
    name = kept.keep_mask(mask)
    assert np.array_equal(Payloads(tmp_path / "p").mask(name, shape), mask)
    turned = kept.keep_mask(np.asfortranarray(mask))
    assert turned == name and len(files(tmp_path / "p")) == 1, "the same voxels are kept once"


def test_ids_come_back_up_to_the_largest(tmp_path):
    kept, ids = Payloads(tmp_path), np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    for stored in (ids, ids.astype(">u4")):
        assert np.array_equal(kept.ids(kept.keep_ids(stored)), ids)
    assert len(files(tmp_path)) == 1


def test_what_is_damaged_is_told_and_not_used(tmp_path):
    kept = Payloads(tmp_path)
    name, other = kept.keep_mask(mask_of((9, 9, 9))), kept.keep_mask(mask_of((9, 9, 9), 1))
    path, whole = tmp_path / f"{name}{SUFFIX}", (tmp_path / f"{name}{SUFFIX}").read_bytes()
    for damage in (whole[:-3], b"", whole[:10] + b"\0\0" + whole[12:]):
        path.write_bytes(damage)
        with pytest.raises(VolumeError, match="an edit's voxels cannot be read"):
            kept.mask(name, (9, 9, 9))
    path.write_bytes((tmp_path / f"{other}{SUFFIX}").read_bytes())
    with pytest.raises(VolumeError, match="other content than when it was written"):
        kept.mask(name, (9, 9, 9))
    path.unlink()
    with pytest.raises(VolumeError, match="cannot be read"):
        kept.ids(name)
    with pytest.raises(VolumeError, match=r"92 bytes; expected a mask of \(5, 5, 5\)"):
        kept.mask(other, (5, 5, 5))


def test_payloads_of_one_edit_appear_together_or_not_at_all(tmp_path):
    kept, mask = Payloads(tmp_path), mask_of((4, 4, 4))
    with kept.together():
        names = [kept.keep_mask(mask), kept.keep_ids(np.arange(5, dtype=np.uint32))]
        assert not files(tmp_path)
        assert np.array_equal(kept.mask(names[0], (4, 4, 4)), mask), "read before they are there"
    assert [p.name for p in files(tmp_path)] == sorted(f"{n}{SUFFIX}" for n in names)
    with pytest.raises(KeyError), kept.together():
        kept.keep_mask(mask_of((4, 4, 4), 2))
        raise KeyError
    assert len(files(tmp_path)) == 2 and not list(tmp_path.glob("*.part"))
    later = kept.keep_mask(mask_of((4, 4, 4), 3))
    assert (tmp_path / f"{later}{SUFFIX}").exists(), "on the disk at once again"
