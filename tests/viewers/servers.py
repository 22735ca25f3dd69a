"""What the viewer tests run and ask: Orthanc, and requests as viewers make them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom.dataset import Dataset
from requests_toolbelt.multipart.decoder import MultipartDecoder

ORTHANC_PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
)
START_SECONDS = 180.0


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_program(*names: str) -> str | None:
    """The first of some programs that is installed."""
    return next((found for name in names if (found := shutil.which(name))), None)


def orthanc_plugin() -> str | None:
    """Orthanc's DICOMweb plugin."""
    return next((p for p in ORTHANC_PLUGINS if Path(p).exists()), None)


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a program until the block ends; its children go with it.

    Args:
        ready: address that answers when the program is ready.

    Raises:
        RuntimeError: it ended or did not get ready; the end of its log is in the message.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                tail = log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{command[0]} is not ready at {ready}:\n{tail}")
            time.sleep(0.3)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Orthanc with DICOMweb on loopback; the address of its DICOMweb root."""
    folder.mkdir(parents=True)
    port = free_port()
    settings = {
        "Name": "viewer tests",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "Plugins": [orthanc_plugin()],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Ssl": False},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    base = f"http://127.0.0.1:{port}"
    program = find_program("Orthanc", "orthanc")
    assert program is not None
    with running([program, str(folder / "orthanc.json")], folder / "orthanc.log", f"{base}/system"):
        yield f"{base}/dicom-web"


def store_files(dicomweb: str, files: Sequence[Path]) -> None:
    """Put DICOM files into Orthanc."""
    address = dicomweb.replace("/dicom-web", "/instances")
    for path in files:
        answer = requests.post(
            address, data=path.read_bytes(), headers={"Content-Type": "application/dicom"}
        )
        answer.raise_for_status()


class Client:
    """Requests as viewers make them.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: Any) -> requests.Response:
        """GET a path; any status."""
        return requests.get(f"{self.url}{path}", params=query, timeout=300)

    def infer(self, model: str, image: str, **params: Any) -> tuple[bytes, dict[str, Any]]:
        """Ask for an inference as OHIF does; the file's bytes and the reply's params."""
        asked = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
        answer = requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image},
            files={"params": (None, json.dumps({**asked, **params}))},
            timeout=300,
        )
        assert answer.status_code == 200, answer.text[-2000:]
        parts = MultipartDecoder.from_response(answer).parts
        by_name = {_name(part.headers[b"Content-Disposition"]): part.content for part in parts}
        return by_name["image"], dict(json.loads(by_name["params"]))

    def submit(self, image: str, label: Path, params: Mapping[str, Any]) -> requests.Response:
        """Submit a label."""
        with label.open("rb") as file:
            return requests.put(
                f"{self.url}/datastore/label",
                params={"image": image},
                files={"label": (label.name, file), "params": (None, json.dumps(dict(params)))},
                timeout=300,
            )

    def train(self, **params: Any) -> dict[str, Any]:
        """Train and wait for the end; the last status."""
        answer = requests.post(f"{self.url}/train/combined", json=params, timeout=60)
        assert answer.status_code == 200, answer.text[-2000:]
        while (status := self.get("/train/").json())["status"] in (
            "SUBMITTED",
            "PENDING",
            "RUNNING",
        ):
            time.sleep(1)
        return dict(status)


def _name(disposition: bytes) -> str:
    found = re.search(rb'name="([^"]+)"', disposition)
    assert found, disposition
    return found[1].decode()


def stored_segs(dicomweb: str) -> list[Dataset]:
    """Every SEG in Orthanc."""
    base = dicomweb.replace("/dicom-web", "")
    found = []
    for series in requests.get(f"{base}/series", params={"expand": ""}).json():
        if series["MainDicomTags"].get("Modality") == "SEG":
            for instance in series["Instances"]:
                data = requests.get(f"{base}/instances/{instance}/file").content
                found.append(pydicom.dcmread(io.BytesIO(data)))
    return found
