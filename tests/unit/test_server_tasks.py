"""A training counts from the request on: double clicks are refused, and Stop finds it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from monailabel.utils.async_tasks import task as stock
from monailabel.utils.async_tasks import utils

from lib.server import tasks
from lib.server.tasks import answered_once_started, busy


class App:
    """As much of an app as the stock task asks for."""

    def info(self) -> dict[str, Any]:
        return {"config": {}}

    def bundle_path(self, model: str) -> None:
        return None


@pytest.fixture
def slow_start(monkeypatch):
    """Processes of tasks that need a moment to start, and then run until they are stopped."""
    real = subprocess.Popen
    count = []

    def popen(command, **given):
        time.sleep(0.2)
        count.append(command)
        return real([sys.executable, "-c", "import time; time.sleep(60)"], **given)

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(utils.subprocess, "Popen", popen)
    monkeypatch.setattr(stock, "app_instance", App)
    for kept in ("background_tasks", "background_processes", "background_executors"):
        monkeypatch.setattr(utils, kept, {})
    yield count
    utils.stop_background_task("train")
    for executor in utils.background_executors.values():
        executor.shutdown()


def test_of_requests_at_one_moment_one_is_taken(slow_start):
    run = answered_once_started(stock.AsyncTask.run)
    together = threading.Barrier(4)

    def press(_number):
        together.wait()
        return run("train", {"model": "combined"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(press, range(4)))
    taken = [task for task, _ in answers if task is not None]
    assert len(taken) == len(slow_start) == 1
    assert [said for task, said in answers if task is None] == [
        "a training of 'combined' is running; stop it or wait"
    ] * 3
    assert taken[0]["status"] == "RUNNING" or taken[0]["id"] in utils.processes("train")


def test_a_refusal_says_what_runs_and_how_far_it_is(slow_start):
    run = answered_once_started(stock.AsyncTask.run)
    first, _ = run("train", {"model": "combined"})
    while "details" not in first:  # made by the thread that reads them
        time.sleep(0.01)
    first["details"] = ["INFO step 10 of 50: loss 0.7", "INFO step 12 of 50: loss 0.6", "saved"]
    expected = "a training of 'combined' is running (step 12 of 50); stop it or wait"
    for given in ({}, {"force_sync": True}):
        assert run("train", {"model": "combined"}, **given) == (None, expected)
    assert busy("scoring") == "a scoring is running; stop it or wait", "it ended meanwhile"


def test_stop_right_after_the_answer_stops_it(slow_start):
    run = answered_once_started(stock.AsyncTask.run)
    task, _ = run("train", {"model": "combined"})
    stopped = stock.AsyncTask.stop("train")
    assert (stopped["id"], stopped["status"]) == (task["id"], "STOPPED")


def test_one_that_waits_behind_another_is_answered_at_once(slow_start):
    run = answered_once_started(stock.AsyncTask.run)
    first, _ = run("train", {"model": "combined"})
    second, _ = run("train", {"model": "combined"}, enqueue=True)
    assert second["status"] == "SUBMITTED"
    assert second["id"] != first["id"]
    utils.stop_background_task("train")


def test_a_process_that_cannot_start_is_not_waited_for(slow_start, monkeypatch):
    def popen(command, **given):
        raise OSError("no memory")

    monkeypatch.setattr(utils.subprocess, "Popen", popen)
    monkeypatch.setattr(tasks, "STARTS_WITHIN_S", 0.05)
    task, _ = answered_once_started(stock.AsyncTask.run)("train", {"model": "combined"})
    assert task["status"] == "SUBMITTED"


def test_what_is_asked_for_in_the_request_itself_does_not_wait_for_others():
    seen = []

    def run(*given):
        seen.append(given)
        return {"status": "SUBMITTED"}, None

    asked = ("train", {"model": "combined"}, {"max_epochs": 1})
    assert answered_once_started(run)(*asked, force_sync=True) == ({"status": "SUBMITTED"}, None)
    assert seen == [(*asked, True, False)]
