"""What a person waits for in Neuroglancer: from a key to the answer, in the real client.

    python benchmarks/viewer_clicks.py [--weights model/neuropil.pt] [--repeats 8]

Opens an item of 20 x 512 x 512 (z y x) of synthetic neuropil in Chromium (`make test-viewers`
installs it) and presses P over further and further places from the middle on: where an object
goes on into parts that were not looked at, features are computed, else they are found. Prints, for
each, milliseconds until the answer is told and until the last of its voxels has arrived, the app's
share of that and processor time; at the end the voxels of labels that were sent, request by
request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.labels.hierarchy import load_hierarchy
from lib.server.viewing import add_view_parser, open_view
from lib.synthetic.generate import generate
from lib.view.neuroglancer.viewer import LiveViewer
from lib.view.neuroglancer.volumes import Volume
from lib.volumes.study import Study

ROOT = Path(__file__).resolve().parents[1]
VIEWERS = ROOT / "tests" / "viewers"
SHAPE, SIZES_NM = (512, 512, 20), (8.0, 8.0, 40.0)
STEP = 9
"""Screen points between two places."""


def main() -> None:
    """Press keys, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=str(ROOT / "model" / "neuropil.pt"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--port", default="0")
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    keys = argparse.ArgumentParser()
    add_view_parser(keys.add_subparsers())
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), load_hierarchy())
        study.add_item("item", generate(SHAPE, SIZES_NM, seed=1).image, SIZES_NM)
        words = ["item", "--studies", folder, "--weights", args.weights, "--port", args.port]
        windows, viewer = open_view(keys.parse_args(["view", *words]))
        spent, sent = _watched(viewer)
        steps = [{"key": "p", "x": STEP * n, "y": 0} for n in range(args.repeats + 1)]
        asked = {
            "executable": args.chromium, "address": viewer.url, "shots": folder, "steps": steps
        }  # fmt: skip
        done = subprocess.run(
            ["node", "neuroglancer.js", json.dumps(asked)],
            cwd=VIEWERS, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        windows.close()
    for n, (ms, text) in enumerate(zip(told["ms"], told["told"], strict=True)):
        print(f"{n}: said {ms['said']} ms, voxels {ms['voxels']} ms, key {spent[n]}: {text}")
    print(f"voxels of labels sent: {sent}")


def _watched(viewer: LiveViewer) -> tuple[list[str], list[int]]:
    """Times of each key in the app, and voxels of labels as they are sent."""
    spent: list[str] = []
    sent: list[int] = []
    act, encode = viewer._act, Volume.get_encoded_subvolume

    def timed(name: str, action: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        act(name, action)
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        spent.append(f"{1000 * wall:.0f} ms in the app ({1000 * cpu:.0f} of the processor)")

    def counted(
        self: Volume, data_format: str, start: Any, end: Any, scale_key: str
    ) -> tuple[bytes, str]:
        found = encode(self, data_format, start, end, scale_key)
        if self.volume_type == "segmentation":
            sent.append(int(np.prod(np.asarray(end) - np.asarray(start))))
        return found

    viewer._act = timed  # type: ignore[method-assign]
    Volume.get_encoded_subvolume = counted  # type: ignore[method-assign]
    return spent, sent


if __name__ == "__main__":
    main()
