"""Work in the background that never makes a person wait: one thread, low priority, newest wins."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

logger = logging.getLogger("neuropil.adaptation")

NICENESS = 10


class Background:
    """Does one piece of work at a time; what is asked for meanwhile is done once, afterwards.

    Args:
        work: what to do; its exceptions are logged and kept as `failed`.
        name: of the thread.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work, self._name = work, name
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._running = False
        self.failed = ""

    @property
    def busy(self) -> bool:
        """Whether something is asked for that is not done yet."""
        with self._changed:
            return self._done < self._asked

    def ask(self) -> int:
        """Ask for the work to be done on what is there now.

        Returns:
            A ticket for `wait`.
        """
        with self._changed:
            self._asked += 1
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            return self._asked

    def wait(self, ticket: int, seconds: float) -> bool:
        """Wait until what a ticket asked for is done.

        Returns:
            Whether it is.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= ticket, seconds)

    def _run(self) -> None:
        lower_priority()
        while True:
            with self._changed:
                ticket = self._asked
                if self._done >= ticket:
                    self._running = False
                    return
            failed = ""
            try:
                self._work()
            except Exception as error:
                # A background thread has nobody to raise to; who asks is told.
                failed = f"{type(error).__name__}: {error}"
                logger.exception("%s failed", self._name)
            with self._changed:
                self.failed = failed
                self._done = ticket
                self._changed.notify_all()


def lower_priority() -> None:
    """Let other threads of this process go first; threads that this one starts inherit it."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@contextmanager
def one_core() -> Iterator[None]:
    """Let this thread, and no other, compute on one core.

    Small products cost more to share out than to compute, and two pieces of work have a core each.
    """
    torch.get_num_threads()  # torch sets a new thread's number when it is first asked for
    with threadpool_limits(1, "openmp"):
        yield
