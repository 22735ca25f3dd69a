"""Training checkpoints: all that a run needs to go on exactly where it stopped.

They are read as weights files are (lib/networks/weights.py), and start a run as those do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.configs.load import dump_settings
from lib.configs.settings import Settings
from lib.networks.weights import FORMAT
from lib.volumes.atomic import StagedFiles, write_bytes


def save_checkpoint(
    path: Path,
    state: Mapping[str, Any],
    settings: Settings,
    origins: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint atomically, and beside it the resolved configuration with its origins."""
    with StagedFiles() as staged:
        torch.save({"format": FORMAT, **state}, staged.create(path))
        staged.commit()
    write_bytes(path.with_suffix(".yaml"), dump_settings(settings, origins).encode())


def random_states() -> dict[str, Any]:
    """The states of every global random generator, as plain values and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Set every global random generator to a saved state."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(  # noqa: NPY002
        (kind, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )
