"""The study's page in a browser that reaches nothing but this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from tests.conftest import Server
from tests.viewers.conftest import need
from tests.viewers.servers import find_program

pytestmark = pytest.mark.viewers

PAGES = {
    "page-study": "/",
    "page-item": "/page/item?image=piece-1&at=70,50,7",
    "page-api": "/docs",
    "page-log": "/logs/",
    "page-ohif": "/ohif/",
}
OFFLINE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def browse(address: str, *options: str) -> tuple[str, str]:
    """A page's content after its scripts ran, and what the browser complained about."""
    program = find_program("chromium", "chromium-browser", "google-chrome")
    need(program, "chromium", "Debian package chromium")
    assert program is not None
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--enable-logging=stderr", f"--host-resolver-rules={OFFLINE}"]
    command += ["--virtual-time-budget=8000", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(told)


@pytest.fixture(scope="module")
def worked_on(study_server: Server) -> Server:
    """A server with objects found, a region handed out and scores' absence told."""
    url = study_server.url
    answer = requests.post(f"{url}/infer/instances?image=piece-1&output=json", timeout=600)
    assert answer.status_code == 200, answer.text
    requests.post(f"{url}/activelearning/random", json={"client_id": "annotator"}, timeout=60)
    return study_server


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_without_internet(worked_on: Server, artifacts: Path, name: str) -> None:
    address = worked_on.url + PAGES[name]
    shot = artifacts / f"{name}.png"
    browse(address, f"--screenshot={shot}", "--window-size=1280,1500")
    picture = np.asarray(Image.open(shot).convert("L"), np.float32)
    assert picture.std() > 8, f"{shot} is empty"
    content, complaints = browse(address, "--dump-dom")
    assert not complaints
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//(?!127\.0\.0\.1)[^\"]+", content)


def test_scripts_of_the_page_run(worked_on: Server) -> None:
    content, _ = browse(f"{worked_on.url}/", "--dump-dom")
    bar = re.search(r'<div class="switch" id="layers"( hidden="")?>', content)
    assert bar is not None and bar[1] is None, "the buttons appear once the script has run"
    assert 'data-layer="found objects">' in content
    assert re.search(r'data-layer="classes"[^>]*hidden', content), "no item has classes"
    content, _ = browse(f"{worked_on.url}/page/item?image=piece-1", "--dump-dom")
    assert re.search(r"<button hidden", content), "the slider needs no button"
