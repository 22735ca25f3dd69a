"""The pages of a real server: each works without internet, and restores what was kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from lib.engine.publish import keep_version
from tests.conftest import Server, run_server

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of their own: what other tests submitted would decide what is found here."""
    yield from run_server(tmp_path_factory)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/", 200, "synthetic-000"),
        ("/docs", 200, "/infer/{model}"),
        ("/logs/", 200, "App Init - completed"),
        ("/ohif/", 404, "OHIF shows DICOM stores"),
        ("/page/item?image=synthetic-000", 200, "extracellular space"),
        ("/page/progress", 200, "neuropil.pt"),
    ],
)
def test_a_page_is_whole_without_internet(
    server: Server, path: str, status: int, told: str
) -> None:
    answer = requests.get(server.url + path, timeout=120)
    assert answer.status_code == status and told in answer.text, answer.text[-2000:]
    own = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert not [a for a in own if a.startswith(("http:", "https:", "//"))]
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for asset in (a for a in own if a.startswith("/page/static/")):
        assert requests.get(server.url + asset, timeout=60).status_code == 200


def test_sections_are_pictures(server: Server) -> None:
    ask = {"image": "synthetic-000", "section": 3, "layer": "classes", "pixels": 64}
    answer = requests.get(f"{server.url}/page/section", params=ask, timeout=120)
    assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG")
    for wrong in ({"section": 999}, {"layer": "x"}, {"section": "x"}):
        status = requests.get(f"{server.url}/page/section", params={**ask, **wrong}).status_code
        assert status in (400, 422)
    missing = requests.get(f"{server.url}/page/section", params={**ask, "image": "../x"})
    assert missing.status_code == 404


def test_a_layer_is_a_volume_by_name(server: Server) -> None:
    ask = {"image": "synthetic-000", "layer": "classes"}
    answer = requests.get(f"{server.url}/page/volume", params=ask, timeout=60)
    assert "synthetic-000-classes.nii.gz" in answer.headers["Content-Disposition"]
    missing = requests.get(f"{server.url}/page/volume", params={**ask, "layer": "x"}, timeout=60)
    assert missing.status_code == 404
    assert "no file of 'x'; there are: classes" in missing.json()["detail"]


def test_a_layer_that_no_item_has_is_refused_with_those_there_are(server: Server) -> None:
    url = f"{server.url}/page/item"
    refused = requests.get(url, params={"image": "synthetic-000", "layer": "clases"}, timeout=60)
    assert refused.status_code == 400
    told = refused.json()["detail"]
    assert "found 'clases'" in told and "image, classes, objects" in told
    lacking = {"image": "synthetic-000", "layer": "uncertainty"}  # of another item, or not yet
    assert requests.get(url, params=lacking, timeout=60).status_code == 200


def test_kept_weights_are_restored_from_the_page(server: Server) -> None:
    kept = keep_version(server.weights)
    assert kept is not None
    before = requests.get(f"{server.url}/page/progress", timeout=60).text
    assert kept.name in before
    restore = f"{server.url}/page/restore"
    done = requests.post(restore, data={"version": kept.name}, timeout=60, allow_redirects=False)
    assert done.status_code == 303 and done.headers["Location"] == "/"
    assert server.weights.read_bytes() == kept.read_bytes()
    for wrong in ("x.pt", "../neuropil.pt", ""):
        assert requests.post(restore, data={"version": wrong}).status_code in (404, 422)
    foreign = {"Origin": "https://elsewhere.example"}
    refused = requests.post(restore, data={"version": kept.name}, headers=foreign)
    assert refused.status_code == 403


def test_neuroglancer_is_linked_and_opens(server: Server) -> None:
    home = requests.get(server.url, timeout=120).text
    assert "/neuroglancer?image=synthetic-000" in home
    ask = {"image": "synthetic-000", "at": "10,12,3"}
    page = f"{server.url}/neuroglancer"
    first, second = (
        requests.get(page, params=ask, timeout=120, allow_redirects=False) for _ in range(2)
    )
    assert first.status_code == second.status_code == 303
    address = first.headers["Location"]
    assert address.startswith("http://127.0.0.1:") and address != second.headers["Location"]
    client = requests.get(address, timeout=60)
    assert client.status_code == 200 and "<script" in client.text
    token = address.rstrip("/").rpartition("/")[2]
    wrong = address.replace(token, "0" * len(token))
    assert requests.get(wrong, timeout=60).status_code == 404, "viewers cannot be guessed"
    missing = requests.get(page, params={"image": "../x"}, timeout=60)
    assert missing.status_code == 404 and "no image" in missing.text
