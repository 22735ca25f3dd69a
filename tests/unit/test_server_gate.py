"""Who may speak to the server, from where, and how much they may send."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lib.server.gate import Gate, is_loopback, serves_others

LIMIT = 1000


async def _size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def _client(remote: bool = False, peer: str = "127.0.0.1", base: str = "http://127.0.0.1:8000"):
    app = Starlette(routes=[Route("/", _size, methods=["GET", "POST", "PUT"])])
    gate = Gate(app, remote=remote, max_body_bytes=LIMIT, origins=["https://lab.example"])
    return TestClient(gate, base_url=base, client=(peer, 5000))


def test_other_machines_are_refused_unless_a_host_was_named():
    assert _client(peer="10.0.0.7").get("/").status_code == 403
    assert _client(remote=True, peer="10.0.0.7", base="http://lab:8000").get("/").status_code == 200
    assert _client().get("/").status_code == 200


def test_a_name_that_was_made_to_point_here_is_refused():
    answer = _client(base="http://evil.example:8000").get("/")
    assert answer.status_code == 403
    assert "evil.example" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("https://lab.example", 200),
    ],
)
def test_web_pages_of_others_change_nothing(origin: str, status: int):
    client = _client()
    assert client.post("/", content=b"x", headers={"Origin": origin}).status_code == status
    assert client.get("/", headers={"Origin": origin}).status_code == 200


def test_uploads_over_the_limit_are_refused_however_they_are_sent():
    client = _client()
    assert client.put("/", content=b"x" * LIMIT).text == str(LIMIT)
    declared = client.put("/", content=b"x" * (LIMIT + 1))
    streamed = client.put("/", content=(b"x" * 300 for _ in range(4)))
    for answer in (declared, streamed):
        assert answer.status_code == 413
        assert "max_upload_bytes" in answer.text


def test_loopback_names_and_addresses():
    assert all(is_loopback(h) for h in ("localhost", "127.0.0.1", "127.3.2.1", "::1"))
    assert is_loopback("::ffff:127.0.0.1")
    assert not any(is_loopback(h) for h in ("0.0.0.0", "10.0.0.1", "localhost.evil", ""))


def test_only_a_named_address_opens_the_server():
    assert serves_others(["monailabel", "start_server", "--host", "0.0.0.0"])
    assert serves_others(["monailabel", "start_server", "--host=0.0.0.0"])
    assert serves_others(["monailabel", "start_server", "-i", "0.0.0.0"])
    assert not serves_others(["monailabel", "start_server", "--app", "."])
    assert not serves_others(["monailabel", "start_server", "--host", "127.0.0.1"])
