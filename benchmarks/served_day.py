"""Three sections of unseen tissue, painted and submitted as Slicer does: what the next *Run* gives.

    python benchmarks/served_day.py --studies STUDIES [--item vnc-train] [--weights FILE]

Starts the real server on ten sections of 512 x 512 of an item of the shared data, inverted (which
the weights cannot read), runs `segmentation` and `instances`, submits two thirds of three
sections (every object by a name of its own, mitochondria by their class), waits until what was
learned is in use, and runs both again. Objects are measured by the adapted Rand error within the
seven other sections, and by what three clicks on each of twelve objects there make of it,
mitochondria by their IoU there. Times are seconds of a person who waits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import requests
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.served_clicks import make_app  # noqa: E402
from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.metrics.clicks import Click, seeded_generator, simulate_clicks  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.prediction.classes import FINE_VALUE  # noqa: E402
from lib.volumes.study import Study  # noqa: E402
from tests.conftest import Server, start_server  # noqa: E402

HIERARCHY = load_hierarchy()
ITEM = "tissue"
EDGE, DEPTH = 512, 10
PAINTED = (1, 4, 7)
"""Sections."""
LEAST = 150
"""Voxels of an object that an annotator bothers to paint."""
CLICKED_SECTION, CLICKED, CLICKS = 5, 12, 3


@dataclass(frozen=True)
class Tissue:
    """What the annotator looks at, and knows.

    Args:
        image: (X, Y, Z) uint8.
        ids: (X, Y, Z) objects within a section, 0 none or not known.
        mitochondria: (X, Y, Z) bool.
        voxel_size_nm: (x, y, z).
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.int64]
    mitochondria: NDArray[np.bool_]
    voxel_size_nm: tuple[float, float, float]


def tissue_of(studies: Path, name: str, corner: tuple[int, int]) -> Tissue:
    """Ten sections of an item, inverted."""
    item = Study(studies, HIERARCHY).item(name)
    x, y = corner
    box = ((x, x + EDGE), (y, y + EDGE), (0, DEPTH))
    image = np.asarray(item.open_image()[x : x + EDGE, y : y + EDGE, :DEPTH])
    sets = item.read_class_sets(box)
    only = 1 << HIERARCHY.class_names.index("mitochondria")
    ids = np.maximum(item.read_instances(box).astype(np.int64), 0)
    return Tissue((255 - image).astype(np.uint8), ids, sets == only, item.voxel_size_nm)


def painted(tissue: Tissue) -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
    """(X, Y, Z) what the annotator paints, and the names of its segments."""
    layer = np.zeros(tissue.image.shape, np.uint16)
    names = [{"name": "mitochondria", "idx": 1}]
    part = (slice(EDGE // 3), slice(None))
    for z in PAINTED:
        seen, ids = layer[..., z], tissue.ids[..., z]
        for one in np.unique(ids[ids > 0]):
            mask = ids == one
            mask[part] = False
            if mask.sum() >= LEAST:
                names.append({"name": f"neurite {len(names)}", "idx": len(names) + 1})
                seen[mask] = len(names)
        inside = tissue.mitochondria[..., z].copy()
        inside[part] = False
        seen[inside] = 1
    return layer, names


def ask(server: Server, task: str, told: dict[str, Any], folder: Path) -> NDArray[Any]:
    """(X, Y, Z) the label map that a viewer gets."""
    reply = requests.post(
        f"{server.url}/infer/{task}",
        params={"image": ITEM, "output": "image"},
        data={"params": json.dumps({"result_extension": ".nrrd", **told})},
        timeout=3600,
    )
    reply.raise_for_status()
    file = folder / "answer.nrrd"
    file.write_bytes(reply.content)
    values: NDArray[Any] = nrrd.read(str(file))[0]
    return values


def submit(server: Server, tissue: Tissue, folder: Path) -> int:
    """*Submit*; returns how many segments it had."""
    layer, names = painted(tissue)
    file = folder / "label.nii.gz"
    affine = nibabel.load(server.studies / f"{ITEM}.nii").affine
    nibabel.save(nibabel.Nifti1Image(layer, affine), file)
    with file.open("rb") as content:
        reply = requests.put(
            f"{server.url}/datastore/label",
            params={"image": ITEM},
            files={"label": (file.name, content)},
            data={"params": json.dumps({"label_info": names})},
            timeout=600,
        )
    if not reply.ok:
        raise RuntimeError(f"not submitted: {reply.text}")
    return len(names)


def learned(server: Server, since: float) -> tuple[dict[str, Any], float, float]:
    """What was learned; seconds until the verdict on classes, and until all was in use."""
    classes = 0.0
    while True:
        found = requests.get(f"{server.url}/info/", timeout=60).json()["learning"]
        if not classes and found.get("sentence"):
            classes = time.monotonic() - since
        if not found["running"] and found.get("sentence"):
            return dict(found), classes, time.monotonic() - since
        time.sleep(0.1)


def rand_error(tissue: Tissue, found: NDArray[Any], sections: list[int]) -> float:
    """Adapted Rand error within sections, their mean."""
    errors = [
        adapted_rand_error(contingency(tissue.ids[..., z], found[..., z].astype(np.int64)))
        for z in sections
    ]
    return float(np.mean(errors))


def organelle_iou(tissue: Tissue, found: NDArray[Any], sections: list[int]) -> float:
    """IoU of mitochondria over sections."""
    value = HIERARCHY.class_names.index("mitochondria") + FINE_VALUE
    said, true = (found == value)[..., sections], tissue.mitochondria[..., sections]
    return float((said & true).sum() / max(int((said | true).sum()), 1))


def clicked(server: Server, tissue: Tissue, folder: Path) -> tuple[list[float], int, list[float]]:
    """Mean IoU after each click, clicks that cost over 0.1, and seconds of each."""
    section = tissue.ids[..., CLICKED_SECTION]
    ids, counts = np.unique(section[section > 0], return_counts=True)
    chosen = ids[np.argsort(-counts)][: CLICKED * 4 : 4]  # large and small ones
    known = np.zeros(tissue.image.shape, np.bool_)
    known[..., CLICKED_SECTION] = True  # ids hold within sections only
    seconds: list[float] = []

    def answer(clicks: Sequence[Click]) -> NDArray[np.bool_]:
        points: dict[str, Any] = {"foreground": [], "background": []}
        for click in clicks:
            kind = "foreground" if click.positive else "background"
            points[kind].append([int(v) for v in click.position])
        began = time.monotonic()
        values = ask(server, "proofread", points, folder)
        seconds.append(time.monotonic() - began)
        return values > 0

    after = np.ones((len(chosen), CLICKS))
    for n, one in enumerate(chosen):
        truth = known & (tissue.ids == one)
        _, ious = simulate_clicks(
            answer, truth, known, tissue.voxel_size_nm, seeded_generator(ITEM, int(one)), CLICKS
        )
        after[n, : len(ious)] = ious
    lost = int((np.diff(after, axis=1) < -0.1).sum())
    return after.mean(0).tolist(), lost, seconds


def day(server: Server, tissue: Tissue, folder: Path) -> None:
    """The session, told as it goes."""
    others = [z for z in range(DEPTH) if z not in PAINTED]
    began = time.monotonic()
    organelles = [organelle_iou(tissue, ask(server, "segmentation", {}, folder), others)]
    print(f"segmentation: {time.monotonic() - began:.1f} s", flush=True)
    began = time.monotonic()
    before = ask(server, "instances", {}, folder)
    print(f"instances: {time.monotonic() - began:.1f} s", flush=True)
    sections = [rand_error(tissue, before, z) for z in (others, list(PAINTED))]
    print(f"ARE {sections[0]:.3f} on other sections, {sections[1]:.3f} on those to be painted")
    began = time.monotonic()
    count = submit(server, tissue, folder)
    print(f"submitted {count} segments: {time.monotonic() - began:.1f} s", flush=True)
    found, classes, whole = learned(server, began)
    print(f"verdict on classes after {classes:.1f} s, objects in use after {whole:.1f} s")
    print(found["sentence"], flush=True)
    began = time.monotonic()
    after = ask(server, "instances", {}, folder)
    print(f"instances: {time.monotonic() - began:.1f} s", flush=True)
    sections = [rand_error(tissue, after, z) for z in (others, list(PAINTED))]
    print(f"ARE {sections[0]:.3f} on other sections, {sections[1]:.3f} on the painted ones")
    organelles.append(organelle_iou(tissue, ask(server, "segmentation", {}, folder), others))
    print("IoU {:.3f} -> {:.3f} of mitochondria on other sections".format(*organelles))
    ious, lost, seconds = clicked(server, tissue, folder)
    print(
        f"clicks: IoU {', '.join(f'{i:.2f}' for i in ious)}; {lost} of {CLICKED * (CLICKS - 1)} "
        f"lost more than 0.1; {np.median(seconds):.2f} s in the median, {max(seconds):.2f} at most"
    )


def main() -> int:
    """Start the server, act."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, required=True, help="shared data, imported")
    parser.add_argument("--item", default="vnc-train")
    parser.add_argument("--corner", type=int, nargs=2, default=(256, 256), help="x y of the part")
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    args = parser.parse_args()
    tissue = tissue_of(args.studies, args.item, tuple(args.corner))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        study = Study(folder / "studies", HIERARCHY)
        study.add_item(ITEM, tissue.image, tissue.voxel_size_nm)
        variables = {"OMP_NUM_THREADS": "2"}
        app = make_app(folder / "app", args.weights, "queries: {score_at_start: false}\n")
        server = start_server(app, study.root, variables=variables)
        try:
            day(server, tissue, folder)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
