"""A small volume in a Zarr, small weights and the command that predicts it block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorstore as ts
import torch
from engine_cases import HIERARCHY, tiny_settings
from numpy.typing import NDArray

from lib.configs.settings import Settings
from lib.networks.model import build_network
from lib.networks.weights import save_weights

SETTINGS = [
    "inference.window=[16,16,8]", "blocks.core=[16,16,8]", "blocks.chunk=[8,8,8]",
    "inference.precision=float32",
]  # fmt: skip

SPARSE = (4000, 4000, 1000)
PLACE = (slice(2000, 2064), slice(1200, 1264), slice(600, 632))
"""The only voxels of `sparse`."""


def make_weights(path: Path, seed: int = 0) -> Path:
    """A random network, the smallest there is."""
    settings: Settings = tiny_settings()
    torch.manual_seed(seed)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(path, net.state_dict(), settings, HIERARCHY)
    return path


def make_volume(
    path: Path, shape: tuple[int, int, int] = (37, 26, 17), dtype: str = "uint8"
) -> NDArray[np.generic]:
    """Noise in a Zarr 2 with chunks of 8; x, y, z."""
    values = np.random.default_rng(0).integers(1, 255, shape).astype(dtype)
    spec = {
        "driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {"chunks": [8, 8, 8], "dimension_separator": "/"},
    }  # fmt: skip
    array = ts.open(spec, create=True, dtype=getattr(ts, dtype), shape=shape[::-1]).result()
    array.write(values.T).result()
    (path / ".zattrs").write_text('{"resolution": [40, 8, 8]}')
    return values


def command(
    folder: Path, *more: str, out: str = "seg.zarr", task: str = "segmentation"
) -> list[str]:
    """Words of the command line."""
    return [
        "predict", "--image", str(folder / "em.zarr"), "--out", str(folder / out),
        "--weights", str(folder / "tiny.pt"), "--task", task, "--quiet", *more, "--set", *SETTINGS,
    ]  # fmt: skip


def case(folder: Path, shape: tuple[int, int, int] = (37, 26, 17), dtype: str = "uint8") -> Path:
    """A folder with volume and weights."""
    make_volume(folder / "em.zarr", shape, dtype)
    make_weights(folder / "tiny.pt")
    return folder


def bytes_of(out: Path) -> dict[str, bytes]:
    """Everything that a run wrote, but its ledger."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file())
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in files
        if ".neuropil" not in p.relative_to(out).parts
    }


def sparse(path: Path) -> np.ndarray:
    """16 gigavoxels of which 131,072 are stored."""
    spec = {
        "driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {"chunks": [32, 64, 64], "dimension_separator": "/"},
    }  # fmt: skip
    array = ts.open(spec, create=True, dtype=ts.uint8, shape=SPARSE[::-1]).result()
    part = np.random.default_rng(0).integers(50, 200, (64, 64, 32), np.uint8)
    array[PLACE[::-1]].write(part.T).result()
    (path / ".zattrs").write_text('{"resolution": [40, 8, 8]}')
    return part
