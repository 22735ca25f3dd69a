"""Tokens are good by their realm's signature only; a login that fails says why."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat as Private
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from fastapi import HTTPException

from lib.server.tokens import mend_tokens

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = {"preferred_username": "ann"}


@pytest.fixture
def stock() -> ModuleType:
    """What the stock modules call, mended."""
    auth, login = ModuleType("auth"), ModuleType("login")
    mend_tokens(auth, login)
    assert login.requests is auth.requests
    return auth


def pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption()))


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
def test_a_token_that_the_realm_signed_is_good(stock: ModuleType, algorithm: str) -> None:
    token = jwt.encode(CLAIMS, pem(PRIVATE), algorithm=algorithm)
    assert stock.jwt.decode(token, PUBLIC) == CLAIMS


def test_a_token_that_anyone_could_make_is_not(stock: ModuleType) -> None:
    late = {**CLAIMS, "exp": int(time.time()) - 10}
    # With the public key as a shared secret anyone could sign, if HS256 were listed.
    shared = jwt.PyJWS(algorithms=["HS256"]).encode(b'{"sub": "ann"}', b"secret" * 8, "HS256")
    for token in (
        jwt.encode(CLAIMS, pem(OTHER), algorithm="RS256"),
        jwt.encode(CLAIMS, None, algorithm="none"),
        jwt.encode(late, pem(PRIVATE), algorithm="RS256"),
        shared,
        "nonsense",
    ):
        with pytest.raises(jwt.PyJWTError):
            stock.jwt.decode(token, PUBLIC)


def answer_of(status: int) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    return answer


@pytest.mark.parametrize("status", [400, 401])
def test_a_wrong_password_is_401(
    stock: ModuleType, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(requests, "request", lambda *_, **__: answer_of(status))
    with pytest.raises(HTTPException, match="wrong name or password") as error:
        stock.requests.post(url="http://realm/token")
    assert error.value.status_code == 401
    assert stock.requests.get(url="http://realm").status_code == status, "that asks no password"


def test_other_answers_of_the_realm_are_handed_on(
    stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "request", lambda *_, **__: answer_of(503))
    assert stock.requests.post(url="http://realm/token").status_code == 503


def test_a_realm_that_does_not_answer_is_502(
    stock: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> requests.Response:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(requests, "request", gone)
    for ask in (stock.requests.get, stock.requests.post):
        with pytest.raises(HTTPException, match="does not answer: refused") as error:
            ask(url="http://realm")
        assert error.value.status_code == 502
