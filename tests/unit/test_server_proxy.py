"""The proxy to a DICOM store waits in a thread and stays inside the store."""

import threading
from types import ModuleType

import pytest
import requests
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from lib.server.proxy import mend_proxy
from lib.server.routes import Pools

STORE = "http://127.0.0.1:9/dicom-web"


def _client(stock, studies: str = STORE) -> TestClient:
    """An app with the stock module's shape: its endpoints look the function up when called."""
    module = ModuleType("proxy")
    module.proxy_dicom = stock
    mend_proxy(module, studies, Pools().store)
    app = FastAPI()

    @app.get("/proxy/{path:path}")
    @app.post("/proxy/{path:path}")
    async def proxy(request: Request, path: str):
        return await module.proxy_dicom(request, "wado", path)

    @app.get("/quick")
    async def quick():
        return "here"

    return TestClient(app)


def test_a_slow_store_does_not_hold_up_other_answers():
    asked, release, answers = threading.Event(), threading.Event(), []

    async def stock(request: Request, op: str, path: str):
        asked.set()
        assert release.wait(20)
        return [op, path, (await request.body()).decode()]

    client = _client(stock)
    with client:
        thread = threading.Thread(
            target=lambda: answers.append(client.post("/proxy/studies/1", content=b"x").json())
        )
        thread.start()
        assert asked.wait(20)
        assert client.get("/quick").json() == "here"  # hangs with the stock proxy
        release.set()
        thread.join(20)
    assert answers == [["wado", "studies/1", "x"]]


@pytest.mark.parametrize("path", ["%2e%2e/instances", "studies/%2E%2E/%2e%2e/x", "a/..%5c..%5cx"])
def test_paths_stay_inside_the_store(path: str):
    async def stock(request: Request, op: str, path: str):
        raise AssertionError(f"the store was asked for {path}")

    assert _client(stock).get(f"/proxy/{path}").status_code == 400


def test_no_store_and_a_silent_store_are_told():
    async def stock(request: Request, op: str, path: str):
        raise requests.ConnectionError("refused")

    assert _client(stock, "/data/studies").get("/proxy/studies").status_code == 404
    answer = _client(stock).get("/proxy/studies")
    assert answer.status_code == 502
    assert "refused" in answer.json()["detail"]
