"""docs/api.md is true: its requests are made, in order, to a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT, Server

pytestmark = pytest.mark.contract

PAGE = (ROOT / "docs" / "api.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
UNSHOWN = {
    "/infer/wsi/{model}", "/infer/wsi_v2/{model}", "/datastore/dataset", "/proxy/{op}/{path}",
    "/logs/gpu", "/scoring/", "/batch/infer", "/train/",
}  # fmt: skip
"""What this app does not serve, and the answers of running tasks."""


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_line_of_the_page_runs(server: Server, tmp_path: Path) -> None:
    told = "\n".join(blocks("sh")).replace(ADDRESS, server.url)
    script = "set -euo pipefail\n" + re.sub(r"\bcurl -f\b", "curl --fail-with-body -sS", told)
    done = subprocess.run(
        ["bash", "-xc", script], cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{done.stderr[-1500:]}\n{done.stdout[-1500:]}"
    made = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert made["section.png"].startswith(b"\x89PNG")
    assert all(made[name][:2] == b"\x1f\x8b" for name in made if name.endswith(".gz"))
    assert made["weights.pt"] == server.weights.read_bytes()
    assert requests.get(f"{server.url}/datastore/image/info?image=mine").status_code == 404


def test_the_python_of_the_page_runs(server: Server, tmp_path: Path) -> None:
    for code in blocks("python"):
        command = [sys.executable, "-c", code.replace(ADDRESS, server.url)]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    assert (tmp_path / "clicked.nii.gz").stat().st_size > 0


def test_the_page_shows_each_kind_of_request(server: Server) -> None:
    lines = "\n".join(blocks("sh"))
    description = requests.get(f"{server.url}/openapi.json", timeout=60).json()
    for path in description["paths"]:
        pattern = re.sub(r"\\\{\w+\\\}", r"[\\w$]+", re.escape(path))
        shown = re.search(rf"{re.escape(ADDRESS)}{pattern}[\s\"?]", lines)
        assert shown or path in UNSHOWN, f"docs/api.md has no example of {path}"
