"""Long calls that hold the interpreter, made in a process of their own.

Threads cannot help there: a library that does not release the interpreter's lock stops every
other thread, also the one that answers `/info/`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Isolated(Generic[P, R]):
    """Calls a function in one worker process, which is started when it is first needed.

    Args:
        function: of a module; arguments and results travel as pickles.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, *positional: P.args, **named: P.kwargs) -> R:
        """Call it and wait.

        Raises:
            RuntimeError: the worker was killed, for want of memory most likely.
            Exception: what the function raised.
        """
        with self._lock:
            if self._pool is None:
                # Not forked: a process with threads and a device does not survive that.
                self._pool = ProcessPoolExecutor(1, get_context("spawn"))
            pool = self._pool
        try:
            return pool.submit(self._function, *positional, **named).result()
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            name = getattr(self._function, "__name__", "the worker")
            raise RuntimeError(f"{name}: its process was killed; is memory short?") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Isolated[P, R]:
        return self
