"""What an annotator waits for: from a click's HTTP request to the whole reply.

    python benchmarks/served_clicks.py [--weights model/neuropil.pt] [--threads 2] [--repeats 7]

Starts the real server on a study of 20 x 1024 x 1024 (z y x) made here: synthetic neuropil,
mirrored until it is large enough. Each request is one that a viewer sends, the reply is read to
its end; "first" has nothing in the cache (another place of the image), "next" adds a point to
clicks made before. Windows of 24 x 160 x 160 do not grow unless `--limit` says so. Once with the
network's answer alone, once after `instances` has run, from whose objects clicks then start.
With --training a third time while the server trains: how far training gives way shows in the
ratio to the rows before it, whatever else the machine does. With --clients 4 that many annotators
also click at once, each at a place of its own, as soon as the answer before is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.generate import SyntheticVolume, generate
from lib.volumes.boxes import Triple
from lib.volumes.record import ItemRecord
from lib.volumes.writing import write_item
from tests.conftest import Server, start_server

ROOT = Path(__file__).resolve().parents[1]
SHAPE: Triple = (1024, 1024, 20)
PIECE: Triple = (256, 256, 20)
SIZES_NM = (8.0, 8.0, 40.0)  # not binned: the network sees every voxel
WINDOW: Triple = (160, 160, 24)
VIEWERS: dict[str, dict[str, Any]] = {
    "3D Slicer": {"result_extension": ".nrrd", "result_dtype": "uint8"},
    "OHIF": {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False},
}
PLACES = ((128, 128), (384, 640), (640, 384), (896, 896))
"""Middles of pieces, far enough apart that no two share a window."""
CROWD_CLICKS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="further clicks at a place")
    parser.add_argument("--training", action="store_true", help="also while the server trains")
    parser.add_argument("--clients", type=int, default=0, help="annotators at once, at most 4")
    parser.add_argument("--limit", type=int, nargs=3, default=WINDOW, help="x y z")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        piece = make_study(Path(folder) / "studies")
        windows = f"click_window: {list(WINDOW)}, click_window_limit: {list(options.limit)}"
        config = f"inference: {{{windows}}}\nqueries: {{score_at_start: false}}\n"
        app = make_app(Path(folder) / "app", options.weights, config)
        print("| viewer | clicks start from | first | next, median | slowest | reply | object |")
        print("|---|---|" + "---:|" * 5)
        for objects in (False, True):
            threads = {"OMP_NUM_THREADS": str(options.threads)}
            server = start_server(app, Path(folder) / "studies", variables=threads)
            try:
                if objects:
                    find_objects(server)
                start = "found objects" if objects else "nothing"
                report(server, piece, options.repeats, start)
                crowd(server, piece, options.clients, start)
                if options.training:
                    begin_training(server)
                    report(server, piece, options.repeats, f"{start}, training")
                    crowd(server, piece, options.clients, f"{start}, training")
                    still_training(server)
            finally:
                server.stop()


def make_study(root: Path) -> SyntheticVolume:
    """Write the image; returns the piece that it repeats."""
    piece = generate(PIECE, SIZES_NM, 7)
    row = np.concatenate([piece.image, piece.image[::-1]] * 2, 0)
    image = np.concatenate([row, row[:, ::-1]] * 2, 1)
    assert image.shape == SHAPE
    record = ItemRecord(id="large", voxel_size_nm=SIZES_NM)
    write_item(root, record, load_hierarchy(), image)
    labelled = ItemRecord(id="labelled", voxel_size_nm=SIZES_NM)  # what a training learns
    fine = piece.fine.astype(np.int32)
    sets = np.where(fine < 0, load_hierarchy().unknown, 1 << np.maximum(fine, 0))
    write_item(root, labelled, load_hierarchy(), piece.image, sets.astype(np.int32), piece.instance)
    return piece


def make_app(app: Path, weights: Path, config: str) -> Path:
    """An app folder that shares the code, with weights and what goes with them."""
    (app / "model").mkdir(parents=True)
    for name in ("main.py", "lib"):
        (app / name).symlink_to(ROOT / name)
    for file in weights.parent.glob(f"{weights.stem}*"):
        shutil.copy(file, app / "model" / file.name.replace(weights.stem, "neuropil"))
    (app / "tiny.yaml").write_text(config)
    return app


def find_objects(server: Server) -> None:
    """Run `instances`, as an annotator does before correcting."""
    reply = requests.post(
        f"{server.url}/infer/instances",
        params={"image": "large", "output": "json"},
        data={"params": "{}"},
        timeout=3600,
    )
    reply.raise_for_status()


def begin_training(server: Server) -> None:
    """Start a long training on the annotated item, and wait until it takes steps."""
    told = {"max_epochs": 1000, "steps_per_epoch": 1000}
    requests.post(f"{server.url}/train/combined", json=told, timeout=120).raise_for_status()
    steps = server.app / "model" / "combined" / "train_01" / "events"
    while not steps.is_dir():
        still_training(server)
        time.sleep(1.0)
    time.sleep(30.0)


def still_training(server: Server) -> None:
    """Fail where the training has ended.

    Raises:
        RuntimeError: it has.
    """
    state = requests.get(f"{server.url}/train/", timeout=120).json()
    if state.get("status") != "RUNNING":
        raise RuntimeError(f"no training is running: {state.get('details')}")


def report(server: Server, piece: SyntheticVolume, repeats: int, start: str) -> None:
    """Click at some places and print a row for each viewer."""
    click(server, VIEWERS["OHIF"], [[512, 128, 10]], [])  # loads the weights
    for k, (viewer, asks) in enumerate(VIEWERS.items()):
        first, after, sizes, replies = [], [], [], []
        for x, y in PLACES[2 * k : 2 * k + 2]:
            positive, negative = points_at(piece, x, y, repeats)
            seconds, _, _ = click(server, asks, positive[:1], [])
            first.append(seconds)
            for i in range(1, repeats + 1):
                seconds, reply, size = click(
                    server, asks, positive[: 1 + i // 2], negative[: (i + 1) // 2]
                )
                after.append(seconds)
                replies.append(reply)
                sizes.append(size)
        cells = " | ".join(f"{1000 * t:.0f} ms" for t in (min(first), np.median(after), max(after)))
        print(
            f"| {viewer} | {start} | {cells} | {np.median(replies) / 2**20:.2f} MiB "
            f"| {np.median(sizes):.0f} voxels |",
            flush=True,
        )


def crowd(server: Server, piece: SyntheticVolume, clients: int, start: str) -> None:
    """Annotators who click at the same time: one row, of the clicks after each one's first."""
    if not clients:
        return

    def clicks(place: tuple[int, int]) -> list[tuple[float, int, int]]:
        positive, negative = points_at(piece, *place, CROWD_CLICKS)
        return [
            click(server, VIEWERS["3D Slicer"], positive[: 1 + i // 2], negative[: (i + 1) // 2])
            for i in range(CROWD_CLICKS)
        ]

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(clicks, PLACES[:clients]))
    first = [own[0][0] for own in found]
    after, replies, sizes = zip(*(told for own in found for told in own[1:]), strict=True)
    cells = " | ".join(f"{1000 * t:.0f} ms" for t in (min(first), np.median(after), max(after)))
    print(
        f"| {clients} clients | {start} | {cells} | {np.median(replies) / 2**20:.2f} MiB "
        f"| {np.median(sizes):.0f} voxels |",
        flush=True,
    )


def points_at(
    piece: SyntheticVolume, x: int, y: int, count: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Points on the object at the middle of a piece, and on others around it."""
    turned = piece.instance[:: -1 if (x // 256) % 2 else 1, :: -1 if (y // 256) % 2 else 1]
    ids = turned[64:192, 64:192]
    values, sizes = np.unique(ids[ids > 0], return_counts=True)
    rng = np.random.default_rng(x)
    own = values[np.argmax(sizes)]
    corner = np.array([x - 64, y - 64, 0])
    inside, outside = np.argwhere(ids == own), np.argwhere((ids > 0) & (ids != own))
    drawn = [(rng.permutation(voxels)[:count] + corner).tolist() for voxels in (inside, outside)]
    return drawn[0], drawn[1]


def click(
    server: Server, asks: dict[str, Any], positive: list[list[int]], negative: list[list[int]]
) -> tuple[float, int, int]:
    """Seconds from request to reply, the reply's bytes, and the object's voxels."""
    params = {**asks, "label": "axon", "foreground": positive, "background": negative}
    begin = time.perf_counter()
    reply = requests.post(
        f"{server.url}/infer/proofread",
        params={"image": "large", "output": "image"},
        data={"params": json.dumps(params)},
        timeout=300,
    )
    content = reply.content
    seconds = time.perf_counter() - begin
    reply.raise_for_status()
    return seconds, len(content), voxels_of(content)


def voxels_of(content: bytes) -> int:
    """Voxels of the object in an NRRD file."""
    with tempfile.NamedTemporaryFile(suffix=".nrrd") as file:
        file.write(content)
        file.flush()
        return int(np.count_nonzero(nrrd.read(file.name)[0]))


if __name__ == "__main__":
    main()
