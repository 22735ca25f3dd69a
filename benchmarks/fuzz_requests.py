"""Ask a server everything that its schema allows, with ids that exist: no answer may be a 5xx.

    make fuzz [ARGS='--cases 20000 --seed 0']

Needs schemathesis, which `make fuzz` puts into an environment of its own (.venv-fuzz); the server
runs from the app's. Studies, weights and sessions are made for the run and removed after it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
SECONDS = 120
IDS = ("synthetic-000", "synthetic-001", "a b.c", "nothing")
KNOWN: dict[str, tuple[str, ...]] = {
    "image": IDS, "label": IDS, "id": IDS, "tag": ("final", "original", "instance", "mine"),
    "model": ("segmentation", "instances", "proofread", "proofread_classes", "combined"),
    "strategy": ("random", "uncertainty", "hierarchy", "diverse"),
    "method": ("uncertainty", "agreement"),
}  # fmt: skip
"""Argument -> values that mean something, in place of four of five random ones."""

BUSY = (502, 503, 507)
"""Answers that say what is wrong outside of the server: a store, a device, a disk."""

STARTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.conftest import make_app, make_study, start_server
folder = Path(sys.argv[2])
make_app(folder / "app")
make_study(folder / "studies")
item = folder / "studies" / "synthetic-002.nii"
(folder / "studies" / "a b.c.nii").write_bytes(item.read_bytes())
server = start_server(folder / "app", folder / "studies")
print(server.url, server.log, flush=True)
sys.stdin.read()
server.stop()
"""
"""Run by the app's interpreter: starts a server and ends it with its standard input."""


def known_values(case: Any, session: str, chance: random.Random) -> None:
    """Put ids that exist into a case, in place."""
    for place in (case.path_parameters, case.query):
        for key in list(place or {}):
            values = (session,) if key == "session_id" else KNOWN.get(key)
            if values and chance.random() < 0.8:
                place[key] = chance.choice(values)


def run(url: str, cases: int, start: int, stop: tuple[str, ...]) -> tuple[Counter[str], list[str]]:
    """Ask, operation by operation, and count.

    Args:
        url: of the server.
        cases: requests in all.
        start: seed of the first; the same one asks the same.
        stop: operations ("DELETE /train/") that are left out.

    Returns:
        Statuses of all operations, and each 5xx or hang once.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [o.ok() for o in schema.get_all_operations()]
    operations = [o for o in operations if f"{o.method.upper()} {o.path}" not in stop]
    each = max(1, cases // len(operations))
    image = requests.get(f"{url}/datastore/image?image=a%20b.c", timeout=SECONDS).content
    upload = requests.put(f"{url}/session/", files={"files": ("s.nii", image)}, timeout=SECONDS)
    session = upload.json()["session_id"]
    statuses: Counter[str] = Counter()
    faults: dict[str, str] = {}
    chance = random.Random(start)

    def fault(kind: str, told: str) -> None:
        if kind not in faults:  # told at once: a run may be stopped before its end
            print(f"fault: {kind} {told}", file=sys.stderr, flush=True)
        faults.setdefault(kind, told)

    def ask(name: str, case: Any) -> None:
        known_values(case, session, chance)
        try:
            answer = case.call(base_url=url, timeout=SECONDS)
        except (requests.Timeout, requests.ConnectionError) as error:
            fault(f"{name}: {type(error).__name__}", str(error)[:300])
            return
        except (requests.RequestException, ValueError):
            return  # what cannot be sent at all asks nothing of the server
        statuses[str(answer.status_code)] += 1
        if answer.status_code >= 500 and answer.status_code not in BUSY:
            told = f"{answer.request.url} {str(answer.request.body)[:300]} {answer.text[:200]}"
            fault(f"{name}: {answer.status_code}", told)

    def asker(name: str) -> Callable[[Any], None]:
        def once(case: Any) -> None:  # hypothesis wants a function with a name
            ask(name, case)

        return once

    for operation in operations:
        name = f"{operation.method.upper()} {operation.path}"
        every = settings(
            max_examples=each, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        begin, before = time.monotonic(), statuses.copy()
        every(seed(start)(given(case=operation.as_strategy())(asker(name))))()
        passed, own = time.monotonic() - begin, dict(sorted((statuses - before).items()))
        print(f"{name}: {passed:.0f} s, {own}", file=sys.stderr, flush=True)
    return statuses, [f"{name} {told}" for name, told in sorted(faults.items())]


def tracebacks(log: str) -> list[str]:
    """The end of each traceback in a log: where it was, and what."""
    found = []
    for part in log.split("Traceback (most recent call last):\n")[1:]:
        lines = part.splitlines()
        end = next((n for n, line in enumerate(lines) if not line.startswith(" ")), len(lines) - 1)
        found.append("\n".join(lines[max(0, end - 8) : end + 1]))
    return found


def report(statuses: Counter[str], faults: list[str], traces: list[str]) -> None:
    """Print what a run found."""
    told = f"{dict(sorted(statuses.items()))}, traces {len(traces)}"
    print(f"{sum(statuses.values())} requests: {told}")
    for trace in traces:
        print(f"trace: {trace}")
    for fault in faults:
        print(f"fault: {fault}")


def main() -> int:
    """Run it; exit status 1 where an answer was a 5xx or none came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=str(ROOT / ".venv" / "bin" / "python"))
    # Removing images, weights and the labels under test would leave nothing to ask about.
    left_out = ("DELETE /datastore/image", "DELETE /datastore/", "DELETE /model/{model}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = subprocess.Popen(
            [args.python, "-c", STARTER, str(ROOT), folder],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        try:
            url, log = server.stdout.readline().split(maxsplit=1)
            statuses, faults = run(url, args.cases, args.seed, left_out)
            lives = requests.get(f"{url}/info/", timeout=SECONDS).ok
            traces = tracebacks(Path(log.strip()).read_text(errors="replace"))
            report(statuses, faults, traces)  # before the server is stopped, which may take long
        finally:
            server.stdin.close()
            server.wait(10 * SECONDS)
    return 0 if lives and not faults else 1


if __name__ == "__main__":
    raise SystemExit(main())
