"""What the viewer tests share: which tools there are, synthetic studies, Orthanc, servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lib.dicom.export import SeriesIdentity
from lib.dicom.labels import export_item
from lib.labels.hierarchy import load_hierarchy
from lib.networks.digests import place_weights
from lib.synthetic.generate import SyntheticVolume, generate
from lib.volumes.study import Study
from tests.conftest import ROOT, Server, make_app, start_server
from tests.viewers.servers import find_program, orthanc, orthanc_plugin, store_files

HERE = Path(__file__).parent
ARTIFACTS = ROOT / "artifacts" / "viewers"
SHAPE, VOXEL_NM = (144, 112, 14), (8.0, 8.0, 40.0)
PIECES, STORED = 7, 3
RANDOM_NETWORK = "model: {feature_size: 8, head_size: 4, embedding_size: 2}"
CONFIGURATION = """
training: {max_epochs: 2, steps_per_epoch: 2, val_interval: 1, warmup_steps: 0, image_interval: 1}
data: {patch_size: [64, 64, 8]}
inference: {min_object_voxels: 5}
adaptation: {enabled: false}
"""
SLICER_PYTHON = Path(os.environ.get("VIEWERS_VENV", ROOT / ".venv-viewers")) / "bin" / "python"
PLUGIN = ROOT / ".venv" / "monailabel" / "plugins" / "slicer" / "MONAILabel"


def need(found: object, what: str, where: str) -> None:
    """Skip, and say what is missing and where it comes from."""
    if not found:
        pytest.skip(f"{what} is not installed ({where})")


@dataclass(frozen=True)
class Piece:
    """One synthetic item: its truth and, in a DICOM store, its series."""

    name: str
    truth: SyntheticVolume
    series: SeriesIdentity


@dataclass(frozen=True)
class Store:
    """A DICOMweb store with some items."""

    address: str
    pieces: tuple[Piece, ...]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For a server on this store with a fresh cache of its own."""
        cache = self.folder / f"cache-{len(list(self.folder.glob('cache-*')))}"
        cache.mkdir()
        return {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(cache)}


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where pictures and reports of a run are kept."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser."""
    need(find_program("node"), "node", "Debian package nodejs")
    playwright = HERE / "node_modules" / "playwright-core"
    need(playwright.exists(), "playwright-core", "npm install in tests/viewers")
    program = find_program("chromium", "chromium-browser", "google-chrome")
    need(program, "chromium", "Debian package chromium")
    assert program is not None
    return program


@pytest.fixture(scope="session")
def slicer_python() -> Path:
    """The interpreter of Slicer's libraries."""
    need(SLICER_PYTHON.exists(), "slicer-core", "PyPI, in an environment of its own")
    check = subprocess.run([SLICER_PYTHON, "-c", "import slicer, SimpleITK"], capture_output=True)
    need(check.returncode == 0, "slicer-core", check.stderr.decode()[-200:])
    need((PLUGIN / "MONAILabel.py").exists(), "Slicer's plugin", "MONAI Label's wheel")
    return SLICER_PYTHON


@pytest.fixture(scope="session")
def pieces() -> list[tuple[str, SyntheticVolume]]:
    """Synthetic neuropil, small, all classes: an item for each of Slicer's submissions."""
    return [(f"piece-{n}", generate(SHAPE, VOXEL_NM, seed=n)) for n in range(1, PIECES + 1)]


@pytest.fixture(scope="session")
def study(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, SyntheticVolume]]
) -> Study:
    """The pieces as a local study without labels."""
    made = Study(tmp_path_factory.mktemp("viewers") / "study", load_hierarchy())
    for name, truth in pieces:
        made.add_item(name, truth.image, truth.voxel_size_nm)
    return made


@pytest.fixture(scope="session")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    study: Study,
    pieces: list[tuple[str, SyntheticVolume]],
) -> Iterator[Store]:
    """Orthanc with the pieces as `python main.py export --dicom` writes them."""
    need(find_program("Orthanc", "orthanc"), "Orthanc", "Debian package orthanc")
    need(orthanc_plugin(), "Orthanc's DICOMweb plugin", "Debian package orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("store")
    with orthanc(folder / "orthanc") as address:
        stored = []
        for name, truth in pieces[:STORED]:
            series = export_item(study.item(name), folder / name)
            store_files(address, series.files)
            stored.append(Piece(name, truth, series))
        yield Store(address, tuple(stored), folder)


@pytest.fixture(scope="session")
def trained() -> bool:
    """Whether the servers have the shipped weights, of which right objects can be asked."""
    return _weights() == ROOT / "model" / "neuropil.pt"


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app with weights of its own: the shipped ones, or a tiny random network."""
    folder = tmp_path_factory.mktemp("server") / "app"
    make_app(folder, CONFIGURATION + RANDOM_NETWORK)
    place_shipped(folder, CONFIGURATION)
    return folder


@pytest.fixture(scope="module")
def store_server(store: Store, app_folder: Path) -> Iterator[Server]:
    """The app on the DICOM store, with a fresh cache."""
    running = start_server(app_folder, store.address, variables=store.environment)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def study_server(study: Study, app_folder: Path) -> Iterator[Server]:
    """The app on a copy of the local study."""
    shutil.copytree(study.root, app_folder.parent / "studies")
    running = start_server(app_folder, app_folder.parent / "studies")
    yield running
    running.stop()


def place_shipped(app: Path, configuration: str) -> None:
    """Put the weights to serve into an app folder, where there are any."""
    if (weights := _weights()) is not None:
        place_weights(app / "model" / "neuropil.pt", weights.read_bytes())
        (app / "tiny.yaml").write_text(configuration)  # the network is that of the weights


def u16(image: NDArray[np.uint8]) -> bytes:
    """Grey values as the page holds them: 16 bits, x fastest."""
    return np.asfortranarray(image.astype("<u2")).tobytes(order="F")


def _weights() -> Path | None:
    told = Path(os.environ.get("VIEWERS_WEIGHTS", ROOT / "model" / "neuropil.pt"))
    return told if told.exists() else None
