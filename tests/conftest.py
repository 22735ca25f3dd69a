"""A tiny study, a tiny network and a real server, shared by the tests that need them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
START_SECONDS = 420  # imports alone take minutes on a machine under load

TINY = """
model: {feature_size: 8, head_size: 4, embedding_size: 2}
training: {max_epochs: 2, steps_per_epoch: 2, val_interval: 1, warmup_steps: 0, image_interval: 1}
data: {patch_size: [32, 32, 8]}
inference:
  window: [32, 32, 8]
  click_window: [32, 32, 8]
  click_window_limit: [48, 48, 12]
  min_object_voxels: 5
queries: {region: [32, 32, 8], score_at_start: false}
server: {max_upload_bytes: 20000000}
adaptation: {enabled: false}
"""


@dataclass
class Server:
    """A running server.

    Args:
        url: where it answers.
        studies: its study folder.
        app: its app folder, with `model/` of its own.
    """

    url: str
    studies: Path
    app: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def weights(self) -> Path:
        """The published weights."""
        return self.app / "model" / "neuropil.pt"

    def log_tail(self, count: int = 60) -> str:
        """The end of the log, for messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self) -> None:
        """End it and wait."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


def environment(**more: str) -> dict[str, str]:
    """Variables for a subprocess: this interpreter's programs first, one thread."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": "",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        **more,
    }


def make_study(root: Path, items: int = 3, size: tuple[int, int, int] = (64, 64, 16)) -> None:
    """A demo study, by the command that users have; made once, and copied."""
    shutil.copytree(_demo_study(items, size), root, dirs_exist_ok=True)


@functools.cache
def _demo_study(items: int, size: tuple[int, int, int]) -> Path:
    root = Path(tempfile.mkdtemp(prefix="neuropil-demo-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    words = ["demo", "--studies", str(root), "--items", str(items)]
    words += ["--size", *(str(n) for n in size)]
    subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return root


def make_app(folder: Path, config: str = TINY) -> None:
    """An app folder that shares the code and has weights of its own."""
    (folder / "model").mkdir(parents=True)
    (folder / "main.py").symlink_to(ROOT / "main.py")
    (folder / "lib").symlink_to(ROOT / "lib")
    (folder / "tiny.yaml").write_text(config)
    make_weights(folder / "model" / "neuropil.pt", folder / "tiny.yaml")


def make_weights(path: Path, config: Path, seed: int = 0) -> None:
    """Weights of an untrained network."""
    import torch

    from lib.configs.load import hierarchy_of, load_settings
    from lib.networks.model import build_network
    from lib.networks.weights import save_weights

    torch.manual_seed(seed)
    settings = load_settings(config)
    hierarchy = hierarchy_of(settings)
    net = build_network(settings.model, settings.loss, hierarchy)
    save_weights(path, net.state_dict(), settings, hierarchy)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(
    app: Path,
    studies: Path | str,
    *more: str,
    host: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Server:
    """Start `monailabel start_server` and wait until it answers.

    Args:
        more: further arguments.
        studies: a folder or a DICOMweb address.
        host: name the loopback address; without it the server's default holds.
        variables: further environment variables.
    """
    import requests

    port = free_port()
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app), "--studies", str(studies), "--port", str(port)]
    command += ["--conf", "config", str(app / "tiny.yaml"), *more]
    if host:
        command += ["--host", "127.0.0.1"]
    log = app / f"server-{port}.log"
    told = {"MONAI_LABEL_SESSION_PATH": str(app / "sessions"), **(variables or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=app, env=environment(**told), stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", Path(studies), app, process, log)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            status = requests.get(f"{server.url}/info/", timeout=5).status_code
            if status in (200, 401):  # 401: it is there, and wants a token
                return server
        except requests.RequestException:
            time.sleep(0.2)
    text = server.log_tail()
    server.stop()
    raise AssertionError(f"the server did not start:\n{text}")


def run_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a demo study of its own, until the fixture ends."""
    folder = tmp_path_factory.mktemp("server")
    make_app(folder / "app")
    make_study(folder / "studies")
    running = start_server(folder / "app", folder / "studies")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all contract tests that leave the study's regions and objects alone."""
    yield from run_server(tmp_path_factory)
