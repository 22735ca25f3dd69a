"""Endpoints run off the event loop, and their faults become answers."""

import threading
import time

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from lib.server.errors import as_answer
from lib.server.routes import Pools, finish, mend_router


def test_a_slow_endpoint_does_not_hold_up_a_quick_one():
    """Both endpoints are async in name only, as the stock ones are."""
    router, started, release = APIRouter(prefix="/x"), threading.Event(), threading.Event()

    @router.post("/slow/{n}")
    async def api_slow(n: int):
        started.set()
        assert release.wait(20)
        return n

    @router.get("/quick")
    async def api_quick():
        return "here"

    app = FastAPI()
    app.include_router(router)
    mend_router(router, Pools().slow, {})
    answers = []
    with TestClient(app) as client:
        thread = threading.Thread(target=lambda: answers.append(client.post("/x/slow/7").json()))
        thread.start()
        assert started.wait(20)
        assert client.get("/x/quick").json() == "here"  # hangs on the stock router
        assert not answers
        release.set()
        thread.join(20)
    assert answers == [7]


def test_paths_methods_and_checks_survive():
    router = APIRouter(prefix="/x")
    seen = []

    @router.put("/", include_in_schema=False)
    @router.put("/thing")
    async def api_thing(name: str, size: int = 3):
        return {"name": name, "size": size}

    def check(call):
        seen.append(dict(call))
        if call["name"] == "bad":
            raise HTTPException(400, "bad name")

    app = FastAPI()
    app.include_router(router)
    mend_router(router, Pools().quick, {"api_thing": check})
    client = TestClient(app)
    assert client.put("/x/thing?name=a&size=5").json() == {"name": "a", "size": 5}
    assert client.put("/x/?name=a").json() == {"name": "a", "size": 3}
    assert client.put("/x/thing?name=bad").status_code == 400
    assert client.put("/x/thing").status_code == 422
    assert client.get("/x/thing?name=a").status_code == 405
    assert len(seen) == 3
    assert list(app.openapi()["paths"]) == ["/x/thing"]


def test_an_endpoint_that_really_awaits_is_not_cut_short():
    import asyncio

    async def api_waits():
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="awaits"):
        finish(api_waits, None, {})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImageNotFoundException("Image x not found"), 404),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "there is no such model"), 404),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "Model is not provided"), 400),
        (ValueError("shape (3, 3) where (4, 4) is needed"), 400),
        (TimeoutError("busy"), 503),
        (HTTPException(413, "too large"), 413),
    ],
)
def test_faults_of_the_request_get_their_status_and_message(error: Exception, status: int):
    answer = as_answer(error)
    assert answer is not None
    assert answer.status_code == status
    assert answer.detail


def test_faults_of_the_server_stay_500():
    assert as_answer(KeyError("x")) is None
    assert as_answer(MONAILabelException(MONAILabelError.SERVER_ERROR, "broken")) is None


def test_time_is_not_spent_on_the_loop():
    """The loop stays free while a check sleeps."""
    router = APIRouter()

    @router.get("/a")
    async def api_a():
        return threading.current_thread().name

    app = FastAPI()
    app.include_router(router)
    mend_router(router, Pools().info, {"api_a": lambda _call: time.sleep(0)})
    assert TestClient(app).get("/a").json().startswith("info")
