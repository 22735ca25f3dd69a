"""Chunked volumes behind a web server and in an object store."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorstore as ts

from lib.volumes.errors import VolumeError
from lib.volumes.import_plan import default_id
from lib.volumes.readers import remote
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.remote import RemoteFolder, is_remote, split_address

VOXELS = np.arange(12 * 10 * 8, dtype=np.uint16).reshape(12, 10, 8)
"""x, y, z."""


def write(folder: Path, driver: str) -> None:
    """A volume of one kind, as other programs lay it out."""
    store = {"driver": "file", "path": f"{folder}/"}
    if driver == "neuroglancer_precomputed":
        spec = {
            "driver": driver, "kvstore": store,
            "multiscale_metadata": {"type": "image", "data_type": "uint16", "num_channels": 1},
            "scale_metadata": {
                "size": VOXELS.shape, "resolution": [4, 4, 40], "encoding": "raw",
                "chunk_size": [8, 8, 4],
            },
        }  # fmt: skip
        ts.open(spec, create=True).result()[...].write(VOXELS[..., None]).result()
        return
    values = VOXELS if driver == "n5" else VOXELS.T
    ts.open(
        {"driver": driver, "kvstore": store}, create=True, dtype=ts.uint16, shape=values.shape
    ).result().write(values).result()


KINDS = ("zarr", "zarr3", "n5", "neuroglancer_precomputed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for kind in KINDS:
        write(root / kind, kind)
    group = root / "group.zarr"
    write(group / "volumes" / "raw", "zarr")
    (group / ".zgroup").write_text('{"zarr_format": 2}')
    entries = '{"zarr_consolidated_format": 1, "metadata": {"volumes/raw/.zarray": {}}}'
    (group / ".zmetadata").write_text(entries)
    return root


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_read_over_http(address: str, kind: str) -> None:
    source = open_source(f"{address}/{kind}")
    assert source.shape == VOXELS.shape
    assert source.info.path == f"{address}/{kind}"
    assert (source[2:9, 1:7, 3:5] == VOXELS[2:9, 1:7, 3:5]).all()


def test_a_named_array_and_the_only_listed_one_are_the_same(address: str) -> None:
    for text in ("group.zarr:volumes/raw", "group.zarr"):
        source = open_source(f"{address}/{text}")
        assert (source[:] == VOXELS).all()
    assert (open_source(f"zarr://{address}/zarr")[:] == VOXELS).all()


def test_what_is_not_there_is_named_with_a_remedy(address: str) -> None:
    with pytest.raises(VolumeError, match=r"nothing\.zarr: no container.*AWS_ACCESS_KEY_ID"):
        open_source(f"{address}/nothing.zarr")
    with pytest.raises(VolumeError, match="no Zarr, N5 or Precomputed"):
        open_source(f"{address}/file")


def test_a_store_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"}
    monkeypatch.setattr(remote, "RETRIES", brief)
    remote._context.cache_clear()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(VolumeError, match="cannot be reached"):
        open_source(f"http://127.0.0.1:{port}/a.zarr")
    remote._context.cache_clear()


@pytest.mark.parametrize(
    ("text", "folder", "dataset"),
    [
        ("s3://bucket/a/b.zarr:volumes/raw", "s3://bucket/a/b.zarr", "volumes/raw"),
        ("http://host:8080/a.zarr", "http://host:8080/a.zarr", ""),
        ("http://host:8080/a.zarr:0", "http://host:8080/a.zarr", "0"),
        ("precomputed://gs://bucket/em", "gs://bucket/em", ""),
    ],
)
def test_addresses_are_split(text: str, folder: str, dataset: str) -> None:
    assert is_remote(text)
    assert split_address(text) == (RemoteFolder(folder), dataset)


def test_paths_are_no_addresses_and_ids_are_made_of_addresses() -> None:
    assert not is_remote("/data/a.zarr:raw")
    assert default_id("s3://bucket/em/fib.zarr:raw/s0") == "fib-raw-s0"


def _moto() -> str | None:
    """moto's server: `make test-s3` gives it an environment of its own."""
    return os.environ.get("MOTO_SERVER") or shutil.which("moto_server")


@pytest.mark.skipif(_moto() is None, reason="no moto_server; `make test-s3` installs it")
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_read_from_an_object_store(s3: str, kind: str) -> None:
    source = open_source(f"s3://volumes/{kind}")
    assert (source[2:9, 1:7, 3:5] == VOXELS[2:9, 1:7, 3:5]).all()


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(_moto()), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    try:
        for _ in range(200):
            try:
                requests.put(f"{endpoint}/volumes", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key = path.relative_to(folder).as_posix()
            requests.put(f"{endpoint}/volumes/{key}", path.read_bytes(), timeout=5)
        yield endpoint
    finally:
        patch.undo()
        server.terminate()
        server.wait()
