"""The processes that a server starts for training, scoring and batches: they end with it.

The stock server leaves them running when it is stopped or killed, and the next server then
starts the same work a second time.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time

VARIABLE = "NEUROPIL_SERVER"
WATCH_SECONDS = 1.0
NICENESS = {"batch_infer": 5, "scoring": 10, "train": 19}
"""How far each kind of work steps aside for the server, which answers clicks: at 19 a click gets
98 % of a core that both want. What takes longest gives way to all others."""


def name_server() -> None:
    """In the server: tell the processes that it will start who it is."""
    os.environ[VARIABLE] = str(os.getpid())


def serve_server() -> bool:
    """In a process that a server started: end when it does, and step aside for requests.

    The main thread gets a KeyboardInterrupt, so that half-written files are cleared away and
    the status of a scoring says that it ended.

    Returns:
        False where no server started this process.
    """
    server = os.environ.get(VARIABLE)
    if server is None:
        return False
    os.nice(max((n for kind, n in NICENESS.items() if kind in sys.argv[1:]), default=0))
    # A server that was started in a script's background hands on that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, args=(int(server),), daemon=True).start()
    return True


def _watch(server: int) -> None:
    while os.getppid() == server:
        time.sleep(WATCH_SECONDS)
    _thread.interrupt_main()
