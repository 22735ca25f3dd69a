"""Who may speak to the server, and how much they may send: checked before anything is parsed.

The stock server listens to every network, lets any web page call it with the user's
credentials, and stores uploads of any size.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
READING = {"GET", "HEAD", "OPTIONS"}


def is_loopback(host: str) -> bool:
    """Whether an address or host name is this machine's own."""
    if host in ("localhost", "testclient"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def named_host(arguments: Sequence[str]) -> str:
    """The host that the command line names; "" where it names none."""
    named = ""
    for i, word in enumerate(arguments):
        if word in ("-i", "--host") and i + 1 < len(arguments):
            named = arguments[i + 1]
        elif word.startswith("--host="):
            named = word.partition("=")[2]
    return named


def serves_others(arguments: Sequence[str]) -> bool:
    """Whether the command line names a host that other machines can reach.

    Without one the stock server listens to every network, unasked.
    """
    named = named_host(arguments)
    return bool(named) and not is_loopback(named)


def _host_of(address: str) -> str:
    """The host that an address names; "" where it is no address."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


class Gate:
    """ASGI middleware: peer, origin and size of each request.

    Args:
        app: what it guards.
        remote: whether other machines may connect. They may only where the user named an
            address that they can reach.
        max_body_bytes: the most one request may carry.
        origins: web origins allowed besides this machine's own.
    """

    def __init__(
        self, app: ASGIApp, remote: bool, max_body_bytes: int, origins: Sequence[str] = ()
    ) -> None:
        self.app = app
        self.remote = remote
        self.max_body_bytes = max_body_bytes
        self.origins = {origin.rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            status, message = refusal
            await JSONResponse({"detail": message}, status)(scope, receive, send)
            return
        await self._counted(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and message for a request that stops here."""
        peer = (scope.get("client") or ("localhost", 0))[0]
        if not self.remote:
            if not is_loopback(peer):
                return 403, "this server answers its own machine only; start it with --host"
            named = headers.get("host", "localhost")
            host = _host_of(f"//{named}")
            if not is_loopback(host):  # a web page whose name was made to point here
                return 403, f"host {named!r} is not this machine's"
        origin = headers.get("origin")
        if origin and scope["method"] not in READING and not self._allowed(origin, headers):
            return 403, f"web pages from {origin} may not change anything here"
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_body_bytes:
            return 413, self._too_large()
        return None

    def _allowed(self, origin: str, headers: dict[str, str]) -> bool:
        same = origin.partition("://")[2] == headers.get("host", "") != ""
        listed = origin.rstrip("/") in self.origins
        return same or listed or re.fullmatch(LOOPBACK_ORIGIN, origin) is not None

    def _too_large(self) -> str:
        return (
            f"upload larger than {self.max_body_bytes} bytes; "
            "raise server.max_upload_bytes to allow it"
        )

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and stop it where its body grows past the limit."""
        seen = 0

        async def counting_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body_bytes:  # answered by the framework's exception handler
                raise HTTPException(413, self._too_large())
            return message

        await self.app(scope, counting_receive, send)
