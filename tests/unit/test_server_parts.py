"""Tokens, numbers that JSON lacks, batch defaults, shared weights."""

import json
import os
import threading
from dataclasses import replace

import jwt
import pytest
import requests
import torch
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import HTTPException
from monailabel.endpoints import login
from monailabel.endpoints.user import auth

from lib.configs.load import hierarchy_of
from lib.configs.settings import InferenceSettings, ServerSettings, Settings
from lib.networks.model import build_network
from lib.networks.study_heads import BOUNDARY, CLASSES, StudyHeads
from lib.networks.weights import save_weights
from lib.prediction.joining import PLAIN
from lib.prediction.learned import Joining, Learned, Stored, save_heads
from lib.server.batch import BatchInfer
from lib.server.finite import finite
from lib.server.tokens import mend_tokens
from lib.server.weights import SharedNetwork, device_named
from lib.volumes.errors import VolumeError


@pytest.fixture
def keys(monkeypatch):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setattr(auth.settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(auth, "get_public_key", lambda _realm: public.decode())
    monkeypatch.setattr(auth, "jwt", jwt)
    monkeypatch.setattr(auth, "requests", requests)
    monkeypatch.setattr(login, "requests", requests)
    return private, public


def test_signed_tokens_are_accepted(keys):
    claims = {"preferred_username": "ann", "realm_access": {"roles": ["monailabel-user"]}}
    token = jwt.encode(claims, keys[0], algorithm="RS256")
    with pytest.raises(jwt.exceptions.PyJWTError):
        auth.from_token(token)  # the stock fault
    mend_tokens(auth, login)
    assert auth.from_token(token).username == "ann"


def test_forged_tokens_are_refused(keys):
    mend_tokens(auth, login)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = {"preferred_username": "eve"}
    unsigned = jwt.encode(claims, None, algorithm="none")
    forged = jwt.encode(claims, other, algorithm="RS256")
    secret = jwt.encode(claims, "x" * 64, algorithm="HS256")
    for token in (unsigned, forged, secret):
        with pytest.raises(jwt.exceptions.InvalidTokenError):
            auth.from_token(token)


def test_a_login_server_that_is_away_is_told(keys):
    mend_tokens(auth, login)
    with pytest.raises(HTTPException, match="login server does not answer") as told:
        auth.open_id_configuration("http://127.0.0.1:9/realms/away")
    assert told.value.status_code == 502


def test_what_json_cannot_say_becomes_null():
    value = {"a": [1.5, float("nan")], "b": (float("inf"), 2), "c": "x", "d": None}
    assert json.loads(json.dumps(finite(value), allow_nan=False)) == {
        "a": [1.5, None],
        "b": [None, 2],
        "c": "x",
        "d": None,
    }


class _Images:
    def list_images(self):
        return ["a", "b"]


def test_batches_run_on_a_machine_without_gpus(monkeypatch):
    """The stock defaults end in a division by zero."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    devices = []

    def infer(request, _datastore):
        devices.append(request["device"])
        return {}

    for request in ({}, {"multi_gpu": True, "device": "cuda", "gpus": "all"}):
        assert set(BatchInfer()({**request, "model": "m"}, _Images(), infer)) == {"a", "b"}
    assert devices == ["cpu"] * 4


def test_a_batch_names_what_cannot_be_read_and_does_the_rest():
    def infer(request, _datastore):
        assert type(request["label_tag"]) is str and request["label_tag"] == "original"
        if request["image"] == "a":
            raise VolumeError("a.nii", "truncated or damaged")
        return {"label": "b"}

    found = BatchInfer()({"model": "m"}, _Images(), infer)
    assert found == {"a": {"skipped": "a.nii: truncated or damaged"}, "b": {"label": "b"}}

    def fail(*_):
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        BatchInfer()({"model": "m"}, _Images(), fail)


def test_a_missing_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert {device_named(n) for n in (None, "cuda", "cuda:3", ["cuda"], "cpu")} == {"cpu"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_named(n) for n in ("cuda:1", "cuda:5", "cpu")] == ["cuda:1", "cuda", "cpu"]


@pytest.fixture
def shared(tmp_path):
    loads = []

    def load(path, settings, device):
        loads.append((path.read_text(), settings.inference.overlap, device))
        return object()

    ours = Settings(
        inference=InferenceSettings(overlap=0.5), server=ServerSettings(busy_timeout_seconds=0.05)
    )
    return SharedNetwork(tmp_path / "w.pt", ours, load), loads, tmp_path / "w.pt"


def test_weights_are_read_once_and_again_when_they_change(shared):
    network, loads, path = shared
    with pytest.raises(ValueError, match="train first"):
        network.get("cpu")
    path.write_text("one")
    first = network.get("cpu")
    assert network.get("cpu") is first
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    second = network.get("cpu")
    assert second is not first
    assert second.version != first.version
    assert loads == [("one", 0.5, "cpu"), ("two", 0.5, "cpu")]


def test_fragments_are_found_by_the_heads_that_the_study_chose_for_them(tmp_path):
    """Others than those of its classes, or none: what is kept of fragments depends on them."""
    ours = Settings.model_validate({"model": {"feature_size": 8, "head_size": 4}})
    hierarchy = hierarchy_of(ours)
    net = build_network(ours.model, ours.loss, hierarchy)
    path = tmp_path / "w.pt"
    save_weights(path, net.state_dict(), ours, hierarchy)
    network = SharedNetwork(path, ours, study=tmp_path / "study")
    learned = Learned("Learned.", True, network.digest(), "labels")
    classes, boundary = (StudyHeads(4, outputs, 2) for outputs in ({CLASSES: 12}, {BOUNDARY: 1}))
    for grouping in (None, classes, boundary):
        stored = Stored(learned, classes, joining=Joining(2.0, plain=True), grouping=grouping)
        save_heads(tmp_path / "study", stored)
        loaded = network.get("cpu")
        assert loaded.net.task_heads.study is not None
        found = loaded.predictor.grouping
        assert found is not None and (found.task_heads.study is None) == (grouping is None)
        assert loaded.fragments == stored.fragments and bool(loaded.fragments) == bool(grouping)
        assert loaded.predictor.joining == replace(PLAIN, offset=PLAIN.offset + 2.0)


def test_a_device_is_given_to_one_volume_at_a_time_and_clicks_do_not_wait(shared):
    network, _, _ = shared
    with network.turn("volume", "cpu"):
        with network.turn("click", "cpu"):
            pass
        failed = []

        def second():
            try:
                with network.turn("volume", "cpu"):
                    pass
            except TimeoutError as error:
                failed.append(str(error))

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(10)
        assert "busy" in failed[0]
    with network.turn("volume", "cpu"):
        pass
