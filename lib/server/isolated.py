"""Calls made in a process of their own, within limits of time and memory.

Threads cannot help there: a library that does not release the interpreter's lock stops every
other thread, also the one that answers `/info/`; and nothing but a process can be stopped when
it takes too long or too much memory.

A worker is a fresh interpreter, neither forked (a process with threads and a device does not
survive that) nor spawned by multiprocessing, which would import the whole server again.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """What one call may take.

    Args:
        seconds: of waiting; None: no limit.
        bytes: of memory beyond what the worker holds before the call; None: no limit.
    """

    seconds: float | None = None
    bytes: int | None = None


class WorkerStoppedError(RuntimeError):
    """The worker took too long or was killed; says which."""


class Isolated(Generic[P, R]):
    """Calls a function in worker processes, which are started when they are first needed.

    Args:
        function: of a module; arguments and results travel as pickles.
        workers: the most at a time; further calls wait.
    """

    def __init__(self, function: Callable[P, R], workers: int = 1) -> None:
        self._function = function
        self._free = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def __call__(self, *positional: P.args, **named: P.kwargs) -> R:
        """Call it and wait; see `within`."""
        return self.within(Limits(), *positional, **named)

    def within(self, limits: Limits, *positional: P.args, **named: P.kwargs) -> R:
        """Call it and wait, at most as long as the limits say.

        Raises:
            WorkerStoppedError: it took too long, or was killed, for want of memory most likely.
            MemoryError: it wanted more than the limits allow.
            Exception: what the function raised.
        """
        with self._free:
            worker = self._take()
            try:
                good, value = worker.call(limits, positional, named)
            except BaseException:
                worker.stop()
                raise
            if good or not isinstance(value, MemoryError):
                with self._lock:
                    self._idle.append(worker)
            else:
                worker.stop()  # what it still holds would count against the next call
        if good:
            result: R = value
            return result
        raise value

    def start(self) -> None:
        """Start a worker before it is needed, if none is at work; it imports the function."""
        if not self._free.acquire(blocking=False):
            return
        with self._lock:
            if not self._idle:
                self._idle.append(_Worker(self._function))
        self._free.release()

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.lives:
                    return worker
                worker.stop()
        return _Worker(self._function)

    def __deepcopy__(self, memo: dict[int, Any]) -> Isolated[P, R]:
        return self


class _Worker:
    """One process that makes one call after the other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = getattr(function, "__name__", "the worker")
        self._pipe, theirs = Pipe()
        code = f"from lib.server.isolated import serve; serve({theirs.fileno()})"
        paths = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
        theirs.close()
        self._pipe.send_bytes(pickle.dumps(function))
        atexit.register(self.stop)

    @property
    def lives(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def call(
        self, limits: Limits, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[bool, Any]:
        """Make one call.

        Returns:
            (True, the result) or (False, the exception).

        Raises:
            WorkerStoppedError: see `Isolated.within`; the worker is of no more use.
        """
        try:
            self._pipe.send((limits.bytes, positional, named))
            if not self._pipe.poll(limits.seconds):
                raise WorkerStoppedError(f"{self._name}: stopped after {limits.seconds:g} s")
            good, value = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise WorkerStoppedError(
                f"{self._name}: its process was killed; is memory short?"
            ) from error
        return good, value

    def stop(self) -> None:
        """End the process, whatever it is at."""
        atexit.unregister(self.stop)
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def serve(handle: int) -> None:
    """The worker's side: make calls until the server's side of the pipe is gone.

    Args:
        handle: file descriptor of the pipe.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a server that stops lets calls end
        signal.signal(number, signal.SIG_IGN)
    pipe = Connection(handle)
    with contextlib.suppress(EOFError, BrokenPipeError):
        function = pickle.loads(pipe.recv_bytes())
        while True:
            most, positional, named = pipe.recv()
            pipe.send(_outcome(function, most, positional, named))


def _outcome(
    function: Callable[..., Any], most: int | None, positional: Any, named: Any
) -> tuple[bool, Any]:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard if most is None else _held_bytes() + most
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        return True, function(*positional, **named)
    except Exception as error:  # goes to the caller, which raises it
        if not isinstance(error, (ValueError, MemoryError)):  # a fault of ours
            error.add_note(f"in the worker:\n{traceback.format_exc()}")
        return False, _portable(error)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _held_bytes() -> int:
    """What RLIMIT_DATA counts of this process now."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmData:")[2].split()[0])


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in error.__notes__ if hasattr(error, "__notes__") else ():
            plain.add_note(note)
        return plain
    error.__traceback__ = None
    return error
