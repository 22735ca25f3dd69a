"""Tokens are accepted again: `jwt.decode` needs the algorithms, and the stock server names none.

Only signatures by a private key are listed: with HS256 in the list, anyone could sign with
the realm's public key.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jwt

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


class _Decoder:
    """Stands where the stock module calls `jwt.decode` without algorithms."""

    @staticmethod
    def decode(token: str, key: Any, **more: Any) -> Any:
        return jwt.decode(token, key, algorithms=ALGORITHMS, **more)


def mend_tokens(auth: ModuleType) -> None:
    """Make `monailabel.endpoints.user.auth` verify tokens with the listed algorithms."""
    auth.__dict__["jwt"] = _Decoder
