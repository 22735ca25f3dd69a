"""Calls in a process of their own leave this one free, and a killed worker is replaced."""

import os
import signal
import threading
import time

import pytest

from lib.server.isolated import Isolated


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
    with pytest.raises(RuntimeError, match="killed"):
        for _ in range(50):  # until the pool notices
            pid()
            time.sleep(0.05)
    assert pid() not in (first, os.getpid())
    with pytest.raises(ZeroDivisionError):
        Isolated(divmod)(1, 0)
