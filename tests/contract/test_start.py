"""What a server does from its start on, with MONAI Label's login switched on.

It finishes what a killed server was sent, and scores what has no scores. The realm is a small
OpenID server of the test's own: what Keycloak answers, in three requests.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import nrrd
import numpy as np
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from lib.annotation import submissions
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study
from tests.conftest import TINY, Server, make_app, make_study, start_server
from tests.contract.conftest import SLICER, write_nifti

ITEM = "synthetic-000"
HIERARCHY = load_hierarchy()
GLIA = 1 << HIERARCHY.class_names.index("glia")
ROLES = ["monailabel-user", "monailabel-annotator"]


class Realm:
    """Gives its public key, and tokens for the name "ann" and her password."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        realm = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/.well-known/openid-configuration"):
                    self._answer(200, {"token_endpoint": f"{realm.url}/token"})
                else:
                    public = realm.key.public_key().public_bytes(
                        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
                    )
                    self._answer(200, {"public_key": base64.b64encode(public).decode()})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                if (form["username"], form["password"]) == (["ann"], ["secret"]):
                    self._answer(200, {"access_token": realm.token(), "token_type": "bearer"})
                else:
                    self._answer(401, {"error": "invalid_grant"})

            def _answer(self, status: int, told: dict[str, Any]) -> None:
                data = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/realms/lab"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def token(self, key: Any = None, roles: list[str] = ROLES, age: int = 0) -> str:
        """A token of someone with these roles that ends in an hour less `age` seconds."""
        claims = {
            "preferred_username": "ann",
            "realm_access": {"roles": roles},
            "exp": int(time.time()) + 3600 - age,
        }
        return jwt.encode(claims, key or self.key, algorithm="RS256")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    made = Realm()
    yield made
    made.http.shutdown()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, realm: Realm) -> Iterator[Server]:
    """A server that wants tokens, on a study that another one left when it was killed."""
    folder = tmp_path_factory.mktemp("guarded")
    make_app(folder / "app", TINY.replace("score_at_start: false", "score_at_start: true"))
    make_study(folder / "studies", items=1)
    leave_underived(Study(folder / "studies", HIERARCHY), folder)
    login = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.url}
    running = start_server(folder / "app", folder / "studies", variables=login)
    yield running
    running.stop()


def leave_underived(study: Study, folder: Path) -> None:
    """A submission that says: all glia, kept by a server that died before it derived labels."""
    labels = np.ones((64, 64, 16), np.uint8)
    file = write_nifti(folder / "label.nii.gz", labels, study.root / f"{ITEM}.nii")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(submissions, "stage_labels", _die)
        submissions.submit(study, ITEM, file, [{"name": "glia", "idx": 1}])
    assert not (study.item(ITEM).read_class_sets() == GLIA).all()


def _die(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_what_a_killed_server_was_sent_is_not_lost(guarded: Server) -> None:
    item = Study(guarded.studies, HIERARCHY).item(ITEM)
    assert (item.read_class_sets() == GLIA).all()
    assert item.record.known_share["glia"] == 1


def _statuses(server: Server, token: str | None) -> set[int]:
    """What the requests of an annotator's session are answered with."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    label = {"label": ITEM, "tag": "final"}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/info/", {}),
        ("GET", "/datastore/", {}),
        ("GET", "/datastore/image", {"params": {"image": ITEM}}),
        ("GET", "/datastore/label", {"params": label}),
        ("POST", f"/infer/segmentation?image={ITEM}", {"data": {"params": json.dumps(SLICER)}}),
        ("POST", "/batch/infer/segmentation", {"json": {}}),
        ("GET", "/train/", {}),
        ("GET", "/scoring/", {}),
    ]
    return {
        requests.request(method, server.url + path, headers=headers, timeout=60, **more).status_code
        for method, path, more in calls
    }


def test_nothing_is_told_without_a_good_token(guarded: Server, realm: Realm) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    unsigned = jwt.encode({"preferred_username": "ann"}, None, algorithm="none")
    bad = (None, "nonsense", unsigned, realm.token(stranger), realm.token(age=7200))
    for token in bad:
        assert _statuses(guarded, token) == {401}, token
    assert _statuses(guarded, realm.token(roles=[])) == {403}


def test_slicers_client_logs_in_and_works(guarded: Server, tmp_path: Path) -> None:
    client = MONAILabelClient(guarded.url, tmpdir=str(tmp_path))
    assert client.auth_enabled()
    for name, password in (("ann", "guess"), ("eve", "secret")):
        with pytest.raises(MONAILabelClientException) as refused:
            client.auth_token(name, password)
        assert refused.value.status_code == 401
    client.update_auth(client.auth_token("ann", "secret"))
    assert client.auth_valid_token()
    assert client.info()["name"] == "Neuropil"
    assert nrrd.read(client.infer("segmentation", ITEM, {**SLICER})[0])[0].shape == (64, 64, 16)
    kept = guarded.studies / "labels" / "final" / f"{ITEM}.nii.gz"
    assert Path(client.download_label(ITEM, "final")).read_bytes() == kept.read_bytes()


def test_scores_are_there_though_nobody_asked(guarded: Server, realm: Realm) -> None:
    """Computed in the background from the server's start on."""
    headers = {"Authorization": f"Bearer {realm.token()}"}

    def told(path: str) -> dict[str, Any]:
        return dict(requests.get(guarded.url + path, headers=headers, timeout=20).json())

    deadline = time.monotonic() + 300
    while (status := told("/scoring/")).get("status") != "DONE":
        assert status.get("status", "SUBMITTED") in ("SUBMITTED", "RUNNING"), status
        assert time.monotonic() < deadline, status
        time.sleep(0.3)
    assert status["request"]["method"] == "uncertainty"
    assert (guarded.studies / "labels" / "heat-uncertainty" / f"{ITEM}.nii.gz").exists()
    assert 0 <= told(f"/datastore/image/info?image={ITEM}")["uncertainty"] <= 3
