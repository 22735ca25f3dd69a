"""The targets of export, each held to the contract of all of them."""

from __future__ import annotations

from pathlib import Path

from target_contract import TargetContract

from lib.volumes.writers.chunked_target import N5Target, OmeZarrTarget, ZarrTarget
from lib.volumes.writers.hdf5_target import Hdf5Target
from lib.volumes.writers.precomputed_target import PrecomputedTarget
from lib.volumes.writers.tiff_target import TiffTarget


class TestHdf5Target(TargetContract):
    kind, name = Hdf5Target, "out.h5"

    def address(self, path: Path, dataset: str) -> str:
        return f"{path}:{dataset}"


class TestZarrTarget(TargetContract):
    kind, name = ZarrTarget, "out.zarr"

    def address(self, path: Path, dataset: str) -> str:
        return f"{path}:{dataset}"


class TestOmeZarrTarget(TargetContract):
    kind, name = OmeZarrTarget, "out.ome.zarr"

    def address(self, path: Path, dataset: str) -> str:
        return f"{path}:{dataset}"


class TestN5Target(TargetContract):
    kind, name = N5Target, "out.n5"
    outside = (0,)  # N5 reads 0 where nothing is written

    def address(self, path: Path, dataset: str) -> str:
        return f"{path}:{dataset}"


class TestPrecomputedTarget(TargetContract):
    kind, name, placed, named = PrecomputedTarget, "out", True, False
    outside = (0,)  # Precomputed reads 0 where nothing is written

    def address(self, path: Path, dataset: str) -> str:
        return str(path)


class TestTiffTarget(TargetContract):
    kind, name, fills_in, named = TiffTarget, "out.tif", False, False

    def address(self, path: Path, dataset: str) -> str:
        return str(path)
