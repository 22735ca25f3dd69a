"""Calls in a process of their own leave this one free, and a killed worker is replaced."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lib.server.isolated import Isolated, Limits, WorkerStoppedError


def test_other_threads_run_meanwhile():
    """`re` holds the interpreter's lock during one match; a pattern like this takes long."""
    import re

    slow = Isolated(re.match)
    slow("a", "b")  # the worker starts here
    ticks, done = [], threading.Event()

    def tick():
        while not done.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.monotonic()
    assert slow(r"(a+)+$", "a" * 24 + "b") is None
    end = time.monotonic()
    done.set()
    thread.join()
    inside = [t for t in ticks if begin < t < end]
    assert len(inside) > 5, "in this process there would be no tick at all"


def test_errors_come_back_and_a_killed_worker_is_replaced():
    pid = Isolated(os.getpid)
    first = pid()
    assert first != os.getpid()
    assert pid() == first
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    assert pid() not in (first, os.getpid()), "nothing was lost: no one need know"
    with pytest.raises(WorkerStoppedError, match="abort: its process was killed"):
        Isolated(os.abort)()
    with pytest.raises(ZeroDivisionError) as told:
        Isolated(divmod)(1, 0)
    (note,) = told.value.__notes__
    assert "in the worker:" in note and "ZeroDivisionError" in note, "where it happened"
    with pytest.raises(ValueError, match="invalid literal") as plain:
        Isolated(int)("x")
    assert not hasattr(plain.value, "__notes__"), "words for the user need no traceback"


def wait_for_end(pid):
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)


def test_a_call_that_takes_too_long_is_stopped_and_the_next_one_is_made():
    sleep = Isolated(time.sleep)
    sleep(0)
    with pytest.raises(WorkerStoppedError, match=r"sleep: stopped after 0\.2 s"):
        sleep.within(Limits(seconds=0.2), 60)
    sleep.within(Limits(seconds=30), 0)


def test_a_call_that_wants_too_much_memory_is_refused_it():
    fill = Isolated(bytes)
    limits = Limits(bytes=64 << 20)
    with pytest.raises(MemoryError):
        fill.within(limits, 256 << 20)
    assert len(fill.within(limits, 16 << 20)) == 16 << 20
    assert len(fill(100 << 20)) == 100 << 20, "without limits it may"


def test_a_stopping_server_lets_its_calls_end():
    """What is sent to the whole process group must not make a submission look broken."""
    sleep = Isolated(time.sleep)
    sleep(0)
    (worker,) = sleep._idle
    thread = threading.Thread(target=sleep, args=(0.3,))
    thread.start()
    time.sleep(0.1)
    for number in (signal.SIGINT, signal.SIGTERM):
        worker._process.send_signal(number)
    thread.join()
    assert worker.lives and sleep._idle == [worker]
