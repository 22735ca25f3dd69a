"""What a server started ends with it, cleanly, however the server ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHILD = """
import os, sys, time
from pathlib import Path
from lib.server.children import serve_server

assert serve_server()
Path(sys.argv[2], "starting").write_text(str(os.nice(0)))
Path(sys.argv[2], "starting").rename(Path(sys.argv[2], "started"))  # who sees it can read it
try:
    for _ in range(3000):
        time.sleep(0.02)  # as a network's windows: one after the other
finally:
    Path(sys.argv[2], "cleared").write_text("")
"""

SERVER = """
import subprocess, sys
from lib.server.children import name_server

name_server()
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], sys.argv[3]]).wait()
"""


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


@pytest.mark.parametrize(("method", "nicer"), [("scoring", 10), ("train", 19), ("infer", 0)])
def test_a_child_ends_when_its_server_is_killed(tmp_path, method, nicer):
    server = subprocess.Popen(
        # SIGINT is ignored, as in a server that a script started in its background
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", SERVER, CHILD, method,
         str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        _wait_for(tmp_path / "started")
        assert not (tmp_path / "cleared").exists()
        niceness = int((tmp_path / "started").read_text())
        assert niceness == min(19, os.nice(0) + nicer)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    _wait_for(tmp_path / "cleared")


def test_a_process_that_no_server_started_is_left_alone(monkeypatch):
    from lib.server import children

    monkeypatch.delenv(children.VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGINT)
    assert not children.serve_server()
    assert signal.getsignal(signal.SIGINT) is before
