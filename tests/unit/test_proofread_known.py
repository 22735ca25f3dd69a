"""What is known of the machine's objects beside their map: kept with it, and missed in peace."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from lib.proofread.store import ObjectStore

SHAPE = (4, 3, 2)


def test_classes_go_with_the_objects_and_damaged_ones_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, stored = ObjectStore(tmp_path, 1), tmp_path / "a.nii.gz"
    stored.write_bytes(b"as it will be stored")
    ids = np.arange(24, dtype=np.uint32).reshape(SHAPE) % 3
    classes = np.array([0, 4, 7], np.uint8)
    objects, lost = store.renew("a", SHAPE, ids, classes, stored)
    assert not lost and store.classes("a", objects).tolist() == [0, 4, 7]
    (kept,) = tmp_path.rglob("classes-*.npy")
    content = kept.read_bytes()
    for damaged in (b"", content[:20], b"not an array of NumPy"):
        kept.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert store.classes("a", objects).tolist() == [0, 0, 0]
        assert str(kept) in caplog.text
        caplog.clear()
    kept.unlink()
    assert store.classes("a", objects).tolist() == [0, 0, 0] and not caplog.text
