"""Instance ids as files hold them, 0 to 2^32 - 1, and as they are in memory, from -1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import IGNORE_INDEX

UNKNOWN_ID = 2**32 - 1
"""What a file holds where the object is unknown."""


def to_disk_ids(instance: NDArray[Any]) -> NDArray[np.uint32]:
    """Instance ids as stored: -1 becomes 2^32 - 1."""
    return np.where(instance == IGNORE_INDEX, UNKNOWN_ID, instance).astype(np.uint32)


def from_disk_ids(stored: NDArray[Any]) -> NDArray[np.int64]:
    """Instance ids in memory: 2^32 - 1 becomes -1.

    Args:
        stored: of any type, as files of others have them.

    Raises:
        ValueError: a number that is no id.
    """
    if stored.dtype not in (np.uint8, np.uint16, np.uint32):
        bad = (stored < IGNORE_INDEX) | (stored > UNKNOWN_ID)
        if stored.dtype.kind == "f":
            bad |= stored != np.floor(stored)  # also NaN
        if bad.any():
            raise ValueError(
                f"{stored[bad][0]} is no id of an object; expected whole numbers from -1 to "
                f"{UNKNOWN_ID}"
            )
    ids = stored.astype(np.int64)
    ids[ids == UNKNOWN_ID] = IGNORE_INDEX
    return ids
