"""Start a server on a study of many small items and ask for the next sample.

    .venv/bin/python benchmarks/many_items.py --items 2000

A start of a study of two items beside it tells how much of the time is imports.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.activelearning.strategies import DESCRIPTIONS
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study
from tests.conftest import Server, make_app, start_server

SHAPE = (16, 16, 8)


def write_items(root: Path, count: int) -> None:
    """Items of noise; every tenth is annotated in part."""
    study = Study(root, load_hierarchy())
    axon, unknown = study.hierarchy.set_named("axon"), study.hierarchy.unknown
    for n in range(count):
        image = np.random.default_rng(n).integers(0, 255, SHAPE).astype(np.uint8)
        sets = np.full(SHAPE, unknown, np.int32)
        sets[:4] = axon
        study.add_item(f"item-{n:05d}", image, (8.0, 8.0, 40.0), sets if n % 10 == 0 else None)


def started(app: Path, studies: Path) -> tuple[Server, float]:
    """A server, and the seconds until it answers."""
    begin = time.monotonic()
    return start_server(app, studies), time.monotonic() - begin


def seconds(url: str, path: str, body: dict[str, str] | None = None) -> float:
    """How long one request takes.

    Raises:
        requests.HTTPError: it is refused.
    """
    begin = time.monotonic()
    answer = requests.request("GET" if body is None else "POST", url + path, json=body, timeout=120)
    answer.raise_for_status()
    return time.monotonic() - begin


def main() -> int:
    """Run it and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    args = parser.parse_args()
    found: dict[str, float | list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        make_app(app)
        for name, count in (("two", 2), ("many", args.items)):
            write_items(Path(folder) / name, count)
            for turn in ("first", "again"):
                server, found[f"start, {count} items, {turn}"] = started(app, Path(folder) / name)
                if count == 2 or turn == "first":
                    server.stop()
        try:
            for strategy in DESCRIPTIONS:
                found[f"next sample, {strategy}"] = [
                    seconds(server.url, f"/activelearning/{strategy}", {"client_id": str(n)})
                    for n in range(3)
                ]
            found["info"] = seconds(server.url, "/info/")
            found["datastore, all"] = seconds(server.url, "/datastore/?output=all")
        finally:
            server.stop()
    rounded = {k: np.round(v, 2).tolist() for k, v in found.items()}
    print(json.dumps(rounded, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
