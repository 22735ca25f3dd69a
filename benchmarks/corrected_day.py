"""Run, correct, submit, run again: what corrections of the machine's answer do to other sections.

    python benchmarks/corrected_day.py --studies STUDIES classes [--item vnc-train] [--inverted]
    python benchmarks/corrected_day.py --studies STUDIES objects [--corrected 5]

Starts the real server on ten sections of 512 x 512 of an item of the shared data and does what a
viewer does: gets the machine's answer, changes it in two thirds of three sections, and sends all of
it back, changed or not. `classes`: every mitochondrion there is painted rightly, and what was
called so wrongly is painted as `neuron_part`. `objects`: so many of the largest wrong objects of
each of the three sections are drawn anew, each under a name of its own. Then what was learned is
told, and the seven other sections are measured before and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.served_clicks import make_app  # noqa: E402
from benchmarks.served_day import (  # noqa: E402
    DEPTH,
    EDGE,
    HIERARCHY,
    ITEM,
    PAINTED,
    Tissue,
    ask,
    learned,
    organelle_iou,
    rand_error,
    tissue_of,
)
from lib.volumes.study import Study  # noqa: E402
from tests.conftest import Server, start_server  # noqa: E402

OTHERS = [z for z in range(DEPTH) if z not in PAINTED]
LEAST = 400
"""Voxels of an object that is worth correcting in a section."""
RIGHT = 0.8
"""IoU from which an object of a section is left as it is."""


@dataclass(frozen=True)
class Layer:
    """What the viewer holds: values, and the names of its segments."""

    values: NDArray[np.uint16]
    names: dict[str, int]


def shown(server: Server, task: str, folder: Path) -> Layer:
    """The machine's answer, with the names that come with it."""
    values = ask(server, task, {}, folder)
    reply = requests.post(
        f"{server.url}/infer/{task}", params={"image": ITEM, "output": "json"},
        data={"params": json.dumps({"result_extension": ".nrrd"})}, timeout=3600,
    )  # fmt: skip
    reply.raise_for_status()
    names = {str(n): int(v) for n, v in reply.json()["label_names"].items() if v}
    return Layer(values.astype(np.uint16), names)


def with_classes(layer: Layer, tissue: Tissue) -> tuple[Layer, int]:
    """Mitochondria put right in what the annotator looks at; how many voxels were changed."""
    values, part = layer.values.copy(), slice(EDGE // 3, None)
    own, other = layer.names["mitochondria"], layer.names["neuron_part"]
    for z in PAINTED:
        seen, true = values[part, :, z], tissue.mitochondria[part, :, z]
        seen[(seen == own) & ~true] = other
        seen[true] = own
    return Layer(values, layer.names), int((values != layer.values).sum())


def with_objects(layer: Layer, tissue: Tissue, most: int) -> tuple[Layer, int]:
    """The largest wrong objects of each section drawn anew; how many."""
    values, names = layer.values.copy(), dict(layer.names)
    first = int(values.max()) + 1
    for z in PAINTED:
        ids, found = tissue.ids[..., z], layer.values[..., z]
        present, sizes = np.unique(ids[ids > 0], return_counts=True)
        drawn = 0
        for one in present[np.argsort(-sizes)]:
            true = ids == one
            if drawn == most or true.sum() < LEAST:
                break
            inside, counts = np.unique(found[true], return_counts=True)
            best = inside[counts.argmax()]
            if best and counts.max() > RIGHT * ((found == best) | true).sum():
                continue
            value = first + len(names) - len(layer.names)
            values[..., z][true], names[f"neurite {value}"] = value, value
            drawn += 1
    return Layer(values, names), len(names) - len(layer.names)


def submit(server: Server, layer: Layer, folder: Path) -> dict[str, Any]:
    """*Submit*, all that the viewer holds."""
    file = folder / "label.nii.gz"
    affine = nibabel.load(server.studies / f"{ITEM}.nii").affine
    nibabel.save(nibabel.Nifti1Image(layer.values, affine), file)
    told = {"label_info": [{"name": n, "idx": v} for n, v in layer.names.items()]}
    with file.open("rb") as content:
        reply = requests.put(
            f"{server.url}/datastore/label", params={"image": ITEM},
            files={"label": (file.name, content)}, data={"params": json.dumps(told)}, timeout=600,
        )  # fmt: skip
    reply.raise_for_status()
    return dict(reply.json())


def measured(tissue: Tissue, kind: str, found: NDArray[Any]) -> str:
    """Of the sections that nobody looked at."""
    if kind == "classes":
        return f"IoU of mitochondria {organelle_iou(tissue, found, OTHERS):.3f}"
    return f"ARE {rand_error(tissue, found, OTHERS):.3f}"


def day(server: Server, tissue: Tissue, args: argparse.Namespace, folder: Path) -> None:
    """The session, told as it goes."""
    task = {"classes": "segmentation", "objects": "instances"}[args.kind]
    layer = shown(server, task, folder)
    print(f"{measured(tissue, args.kind, layer.values)} on other sections", flush=True)
    if args.kind == "classes":
        changed, count = with_classes(layer, tissue)
    else:
        changed, count = with_objects(layer, tissue, args.corrected)
    began = time.monotonic()
    answer = submit(server, changed, folder)
    shares = {k: answer[k] for k in ("touched_share", "machine_share")}
    print(f"{count} {'voxels' if args.kind == 'classes' else 'objects'} corrected: {shares}")
    found, _, seconds = learned(server, began)
    print(f"after {seconds:.1f} s: {found['sentence']}")
    after = ask(server, task, {}, folder)
    print(f"{measured(tissue, args.kind, after)} on other sections")


def main() -> int:
    """Start the server, act."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("classes", "objects"))
    parser.add_argument("--studies", type=Path, required=True, help="shared data, imported")
    parser.add_argument("--item", default="vnc-train")
    parser.add_argument("--inverted", action="store_true", help="which the weights cannot read")
    parser.add_argument("--corner", type=int, nargs=2, default=(256, 256), help="x y of the part")
    parser.add_argument("--corrected", type=int, default=5, help="objects of a section")
    args = parser.parse_args()
    inverted = tissue_of(args.studies, args.item, tuple(args.corner))
    image = inverted.image if args.inverted else (255 - inverted.image).astype(np.uint8)
    tissue = Tissue(image, inverted.ids, inverted.mitochondria, inverted.voxel_size_nm)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        study = Study(folder / "studies", HIERARCHY)
        study.add_item(ITEM, tissue.image, tissue.voxel_size_nm)
        weights = ROOT / "model" / "neuropil.pt"
        app = make_app(folder / "app", weights, "queries: {score_at_start: false}\n")
        server = start_server(app, study.root, variables={"OMP_NUM_THREADS": "2"})
        try:
            day(server, tissue, args, folder)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
