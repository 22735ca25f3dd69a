"""Tokens are accepted again: `jwt.decode` needs the algorithms, and the stock server names none.

Only signatures by a private key are listed: with HS256 in the list, anyone could sign with
the realm's public key. A wrong password is a 401 here, not a 500.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jwt
import requests
from fastapi import HTTPException

from lib.server.errors import BAD_GATEWAY, BAD_REQUEST, refuse

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
UNAUTHORIZED = 401


class _Decoder:
    """Stands where the stock module calls `jwt.decode` without algorithms."""

    @staticmethod
    def decode(token: str, key: Any, **more: Any) -> Any:
        return jwt.decode(token, key, algorithms=ALGORITHMS, **more)


class _Realm:
    """Stands where the stock modules ask the realm by `requests`."""

    @staticmethod
    def get(**call: Any) -> requests.Response:
        return _asked("GET", call)

    @staticmethod
    def post(**call: Any) -> requests.Response:
        answer = _asked("POST", call)
        if answer.status_code in (BAD_REQUEST, UNAUTHORIZED):  # either, by the realm's taste
            raise refuse("wrong name or password", UNAUTHORIZED)
        return answer


def _asked(method: str, call: dict[str, Any]) -> requests.Response:
    try:
        return requests.request(method, **call)
    except requests.RequestException as error:
        raise HTTPException(BAD_GATEWAY, f"the login server does not answer: {error}") from error


def mend_tokens(auth: ModuleType, login: ModuleType) -> None:
    """Make the stock server verify tokens with the listed algorithms, and tell who may not in.

    Args:
        auth: `monailabel.endpoints.user.auth`.
        login: `monailabel.endpoints.login`.
    """
    auth.__dict__["jwt"] = _Decoder
    for module in (auth, login):
        module.__dict__["requests"] = _Realm
