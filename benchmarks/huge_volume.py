"""What an annotator waits for in a volume of 100 gigavoxels, beside the same work in a small item.

    python benchmarks/huge_volume.py [--weights model/neuropil.pt] [--repeats 5]

Makes a Zarr of 10,000 x 10,000 x 1,000 voxels in which synthetic neuropil is stored in one place
and nothing anywhere else, a study whose item it is, and a study with a copied item of one region's
size. The real server answers both: a next sample, the region's voxels as a viewer fetches them, a
first and further clicks, a submission, the objects of a part; in the volume also clicks on it and
objects of a part of it. The server's memory is its peak, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
import tensorstore as ts
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.volumes.boxes import Triple  # noqa: E402
from lib.volumes.record import ItemRecord  # noqa: E402
from lib.volumes.writing import write_item  # noqa: E402
from tests.conftest import Server, environment, start_server  # noqa: E402

SHAPE: Triple = (10_000, 10_000, 1_000)
PLACE: Triple = (5_120, 2_048, 512)
"""Where the only voxels begin."""
STORED: Triple = (256, 256, 64)
CHUNK: Triple = (64, 64, 32)
VOXEL_NM = (8.0, 8.0, 40.0)
BIG, SMALL = "big", "small"
CONFIG = "{queries: {score_at_start: false}, adaptation: {enabled: false}}\n"
Voxels = NDArray[np.uint8]
SLICER: dict[str, Any] = {"result_extension": ".nrrd", "result_dtype": "uint8"}


def sparse_volume(
    path: Path, part: np.ndarray, shape: Triple = SHAPE, place: Triple = PLACE
) -> None:
    """A Zarr (x, y, z) of which one part is stored."""
    spec = {
        "driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {"chunks": list(CHUNK[::-1]), "dimension_separator": "/"},
    }  # fmt: skip
    array = ts.open(spec, create=True, dtype=ts.uint8, shape=shape[::-1]).result()
    where = tuple(slice(p, p + n) for p, n in zip(place, part.shape, strict=True))
    array[where[::-1]].write(part.T).result()
    (path / ".zattrs").write_text(json.dumps({"resolution": list(VOXEL_NM[::-1])}))


def make_studies(folder: Path, stored: Triple = STORED) -> None:
    """The volume, the study that is the volume, and the one with a small item."""
    part = generate(stored, VOXEL_NM, 7).image
    sparse_volume(folder / "em.zarr", part)
    words = ["import", str(folder / "em.zarr"), "--studies", str(folder / BIG), "--lazy"]
    subprocess.run(
        [sys.executable, "main.py", *words, "--id", BIG], cwd=ROOT, env=environment(), check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    record = ItemRecord(id=SMALL, voxel_size_nm=VOXEL_NM)
    write_item(folder / SMALL, record, load_hierarchy(), part)


class Annotator:
    """What one does, with the seconds of each step.

    Args:
        server: at work.
        folder: for files that are sent.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.seconds: dict[str, list[float]] = {}
        self.item = ""

    def timed(self, name: str, act: Callable[[], requests.Response]) -> requests.Response:
        """Do it, read the reply to its end, and note how long that took."""
        begin = time.perf_counter()
        reply = act()
        seconds = time.perf_counter() - begin
        self.seconds.setdefault(name, []).append(seconds)
        print(f"{name}: {seconds:.2f} s, {self.peak_mib()} MiB", file=sys.stderr, flush=True)
        assert reply.status_code == 200, f"{name}: {reply.status_code} {reply.text[:500]}"
        return reply

    def next_sample(self) -> tuple[str, list[int]]:
        """The item and the region handed out."""
        url = f"{self.server.url}/activelearning/random"
        told = self.timed("next sample", lambda: requests.post(url, json={}, timeout=600)).json()
        return str(told["id"]), [int(v) for v in told["region"]["roi"]]

    def fetch(self, item: str) -> Triple:
        """Its voxels, as a viewer asks for them; their shape."""
        url = f"{self.server.url}/datastore/image?image={item}"
        content = self.timed("the image", lambda: requests.get(url, timeout=600)).content
        image: Any = nib.Nifti1Image.from_bytes(content)
        x, y, z = image.shape
        return x, y, z

    def infer(self, name: str, model: str, item: str, **params: Any) -> dict[str, Any]:
        """One inference; what the reply tells."""
        reply = self.timed(
            name,
            lambda: requests.post(
                f"{self.server.url}/infer/{model}", params={"image": item, "output": "all"},
                data={"params": json.dumps({**SLICER, **params})}, timeout=600,
            ),
        )  # fmt: skip
        told = reply.content.split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0]
        return dict(json.loads(told))

    def submit(self, item: str, shape: Triple) -> dict[str, Any]:
        """A label of one axon in the item."""
        values = np.zeros(shape, np.uint8)
        values[8:40, 8:40, 4:12] = 1
        file = self.folder / "label.nii.gz"
        nib.save(nib.Nifti1Image(values, np.diag([*VOXEL_NM, 1.0])), file)
        info = {"label_info": [{"name": "axon 7", "idx": 1}]}
        with file.open("rb") as content:
            reply = self.timed(
                "a submission",
                lambda: requests.put(
                    f"{self.server.url}/datastore/label", params={"image": item},
                    data={"params": json.dumps(info)},
                    files={"label": ("label.nii.gz", content)}, timeout=600,
                ),
            )  # fmt: skip
        return dict(reply.json())

    def peak_mib(self) -> int:
        """Of the server's process, since it began."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        (row,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(row.split()[1]) // 1024


def work(server: Server, folder: Path, repeats: int) -> Annotator:
    """A round of an annotator's work in a study of one item."""
    me = Annotator(server, folder)
    item, roi = me.next_sample()
    me.item = item
    shape = me.fetch(item)
    middle = [(a + b) // 2 for a, b in zip(roi[::2], roi[1::2], strict=True)]
    me.infer("a first click", "proofread", item, label="axon", foreground=[middle])
    for n in range(repeats):
        beside = [min(middle[0] + 9 + n, shape[0] - 1), *middle[1:]]
        told = me.infer(
            "a further click", "proofread", item, label="axon", foreground=[middle],
            background=[beside],
        )  # fmt: skip
        assert "warnings" not in told or not any("outside" in w for w in told["warnings"])
    part = [min(v, middle[n // 2] + 48) for n, v in enumerate(roi)]
    for _ in range(2):
        me.infer("objects of a part", "instances", item, roi=part)
    me.submit(item, shape)
    return me


def in_the_volume(me: Annotator, repeats: int, place: Triple = PLACE) -> None:
    """Clicks and objects of the item that is the whole volume."""
    at = [p + 60 for p in place[:2]] + [place[2] + 16]
    click = {"label": "axon", "foreground": [at], "reply": "box"}
    told = me.infer("a first click in the volume", "proofread", BIG, **click)
    for n in range(repeats):
        beside = [[at[0] + 9 + n, *at[1:]]]
        me.infer("a further click in the volume", "proofread", BIG, **click, background=beside)
    part = [v for p, n in zip(at, (48, 48, 12), strict=True) for v in (p - n // 2, p + n // 2)]
    told = me.infer("objects of a part of the volume", "instances", BIG, roi=part)
    assert told["alone"], "the map of a large image is that of the region"


def main() -> None:
    """Print seconds side by side, and the server's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Annotator] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make_studies(folder)
        app = folder / "app"
        (app / "model").mkdir(parents=True)
        for part in ("main.py", "lib"):
            (app / part).symlink_to(ROOT / part)
        shutil.copy(options.weights, app / "model" / "neuropil.pt")
        (app / "tiny.yaml").write_text(
            "{queries: {score_at_start: false}, adaptation: {enabled: false}}\n"
        )
        peaks = {}
        for study in (SMALL, BIG):
            server = start_server(app, folder / study)
            try:
                found[study] = work(server, folder, options.repeats)
                if study == BIG:
                    in_the_volume(found[study], options.repeats)
                peaks[study] = found[study].peak_mib()
            finally:
                server.stop()
    print("| | small item | 100 gigavoxels |\n|---|---:|---:|")
    for step in {**found[SMALL].seconds, **found[BIG].seconds}:
        cells = [
            f"{1000 * np.median(one.seconds[step]):.0f} ms" if step in one.seconds else ""
            for one in (found[SMALL], found[BIG])
        ]
        print(f"| {step} | {' | '.join(cells)} |")
    print(f"| the server's memory, peak | {peaks[SMALL]} MiB | {peaks[BIG]} MiB |")


if __name__ == "__main__":
    main()
