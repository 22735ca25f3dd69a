"""Import all of the shared data into a study, split as its README says.

    python benchmarks/import_shared_data.py STUDIES_DIR [--only fib25 vnc ...] [--hold-back]

Every data set is one `python main.py import` command (one for each image of AxonDeepSeg); the
commands are printed before they run. The data are looked for in $NEUROPIL_DATA, else in
../shared/data.

With --hold-back the dev splits stay out and a part of the training data validates, for choices
that dev figures must not decide.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cc3d
import imageio.v3 as imageio
import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.commands import main as neuropil  # noqa: E402
from lib.volumes.disk_ids import UNKNOWN_ID  # noqa: E402

MAPPINGS = ROOT / "benchmarks" / "mappings"
NAMES = ("fib25", "fib25block", "vnc", "sbem", "axondeepseg", "gala", "chm")

SBEM_VOXEL_NM = ("7.2", "7.2", "24")
"""An assumption: the source states none. The median section of a mitochondrion is 37 pixels
across (diameter of a disc of its area), which 7.2 nm makes 268 nm; in the VNC volume, whose
voxel size is known, it is 244 nm. The depth is a usual cutting thickness of the method.
Figures that depend on physical size must say so."""

SBEM_MYELIN = {"mass": "0:640,680:1024,11:16", "ring": "780:1024,380:680,0:16"}
"""Myelin in the training sections that looks like mitochondria (x, y, z): in items of its own,
so that a recipe can draw it more often (group `sbem_myelin`)."""

CHM_VOXEL_NM = ("6", "6")
"""An assumption: the source states none. Membranes are about as many pixels wide as in the VNC
volume binned to 9.2 nm, or half as many again."""

DEV_RAT = "rat6"

AXON = 191
"""Least grey value of an axon in an AxonDeepSeg label (as in its mapping)."""

VNC_MEMBRANE = (0, 32, 64, 96, 128)
"""Values of the VNC label that are membrane or its junctions: of no cell."""


def data_folder() -> Path:
    """Where the shared data lie."""
    return Path(os.environ.get("NEUROPIL_DATA", ROOT.parent / "shared" / "data"))


def commands(data: Path, only: list[str], made: Path) -> Iterator[list[str]]:
    """Arguments of `import` for each data set, without --studies.

    Args:
        data: the shared data.
        only: names of the data sets.
        made: folder for object ids that are derived from the labels.
    """
    if "fib25" in only:
        yield [
            *neurites(f"{data}/fib25_sample2.h5"), "--id", "fib25",
            "--split", "train=:,:,0:200", "--split", "val=:,:,210:250",
        ]  # fmt: skip
    if "fib25block" in only:
        yield [
            *neurites(f"{data}/fib25_validation_520.h5"), "--id", "fib25block",
            "--split", "train=:,:,0:420", "--split", "val=:,:,440:520",
        ]  # fmt: skip
    if "vnc" in only:
        yield [
            f"{data}/vnc_raw.tif", "--id", "vnc", "--semantic", f"{data}/vnc_labels.tif",
            "--mapping", f"{MAPPINGS}/vnc-neurites.yaml",
            "--instance", vnc_cells(data, made), "--derived-instances", "--fully-annotated",
            "--split", "train=:,:,0:16", "--split", "val=:,:,16:20",
        ]  # fmt: skip
    if "sbem" in only:
        sbem = [
            f"{data}/sbem_raw.tif", "--semantic", f"{data}/sbem_mito.tif",
            "--mapping", f"{MAPPINGS}/sbem.yaml", "--voxel-size-nm", *SBEM_VOXEL_NM,
        ]  # fmt: skip
        yield [*sbem, "--id", "sbem", "--split", "train=:,:,0:16", "--split", "val=:,:,16:20"]
        for name, part in SBEM_MYELIN.items():
            yield [*sbem, "--id", f"sbem_myelin-{name}", "--split", f"train={part}"]
    if "axondeepseg" in only:
        for image in sorted((data / "axondeepseg_sem").glob("*_SEM.png")):
            yield _axondeepseg(image, made)
    if "gala" in only:
        for name, split in (("train", "train"), ("example", "train"), ("test", "val")):
            yield [
                *neurites(f"{data}/gala_{name}.h5"), "--id", f"gala-{name}", "--fully-annotated",
                "--split", split,
            ]  # fmt: skip
    if "chm" in only:
        chm = f"{data}/chm_neuropil_sbem_slice.h5"
        yield [
            f"{chm}:volumes/raw", "--id", "chm", "--voxel-size-nm", *CHM_VOXEL_NM,
            "--instance", f"{chm}:volumes/labels/instances2d_derived", "--fully-annotated",
            "--split", "val",
        ]  # fmt: skip


def neurites(file: str) -> list[str]:
    """Arguments for an image whose dense ids are of neurites, so that they tell classes as well."""
    ids = f"{file}:volumes/labels/neuron_ids"
    return [file, "--semantic", ids, "--mapping", f"{MAPPINGS}/neurites.yaml"]


def import_missing(folder: Path, only: list[str]) -> None:
    """Import data sets of which a study has no item yet.

    Raises:
        SystemExit: there is no shared data, or it cannot be imported.
    """
    data = data_folder()
    if not data.is_dir():
        raise SystemExit(f"no data at {data}: set NEUROPIL_DATA")
    with tempfile.TemporaryDirectory() as made:
        for words in commands(data, only, Path(made)):
            name = words[words.index("--id") + 1]
            there = any(folder.glob(f"{name}*.nii*"))
            status = 0 if there else neuropil(["import", *words, "--studies", str(folder)])
            if status:
                raise SystemExit(status)


def vnc_cells(data: Path, made: Path) -> str:
    """The derived ids of the VNC volume, which say of membranes alone that they hold no cell."""
    labels = tifffile.imread(data / "vnc_labels.tif")
    ids = tifffile.imread(data / "vnc_neurites_derived.tif").astype(np.uint32)
    ids[(ids == 0) & ~np.isin(labels, VNC_MEMBRANE)] = UNKNOWN_ID
    tifffile.imwrite(made / "vnc_cells.tif", ids, compression="zlib")
    return str(made / "vnc_cells.tif")


def _axons(label: Path, made: Path) -> str:
    """Each axon of an AxonDeepSeg image as an object; what else there may be is unknown."""
    axon = imageio.imread(label)
    grey = axon[..., 0] if axon.ndim == 3 else axon  # beside an alpha channel
    ids = cc3d.connected_components((grey >= AXON).astype(np.uint8), connectivity=8)
    ids = ids.astype(np.uint32)
    ids[ids == 0] = UNKNOWN_ID
    target = made / f"{label.stem}_axons.tif"
    tifffile.imwrite(target, ids, compression="zlib")
    return str(target)


def _axondeepseg(image: Path, made: Path) -> list[str]:
    name = image.name.removesuffix("_SEM.png").replace("sub-", "").replace("sample-", "")
    label = image.with_name(f"{image.stem}_seg-axonmyelin-manual.png")
    split = "val" if DEV_RAT in name else "train"
    return [
        str(image), "--id", f"axondeepseg-{name.replace('_', '-')}", "--semantic", str(label),
        "--mapping", f"{MAPPINGS}/axondeepseg.yaml", "--instance", _axons(label, made),
        "--voxel-size-nm", *pixel_size_nm(image), "--split", split,
    ]  # fmt: skip


def pixel_size_nm(image: Path) -> list[str]:
    """`PixelSize` of the BIDS record of an image, or of its subject (micrometres)."""
    subject = re.sub(r"_sample-[^_]+", "", image.stem)
    for name in (image.stem, subject):
        record = image.with_name(f"{name}.json")
        if record.exists():
            data = json.loads(record.read_text())
            if data.get("PixelSizeUnits") != "um":
                raise ValueError(f"{record}: unit {data.get('PixelSizeUnits')!r}, expected um")
            return [f"{1000 * v:g}" for v in data["PixelSize"]]
    raise ValueError(f"{image}: no JSON record with its PixelSize")


def main() -> int:
    """Run the commands; the first fault stops."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", help="folder of the study")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--replace", action="store_true", help="write over existing items")
    parser.add_argument(
        "--hold-back", action="store_true", help="no dev splits; a part of the training validates"
    )
    args = parser.parse_args()
    data = data_folder()
    if not data.is_dir():
        print(f"no data at {data}: set NEUROPIL_DATA", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as made:
        for words in commands(data, args.only, Path(made)):
            words = held_back(words) if args.hold_back else words
            if not words:
                continue
            line = ["import", *words, "--studies", args.studies]
            line += ["--replace"] if args.replace else []
            print("python main.py", shlex.join(line), flush=True)
            if status := neuropil(line):
                return status
    return 0


def held_back(words: list[str]) -> list[str]:
    """An import without its dev split; empty where it is all dev."""
    if words[-1] == "val":
        return []
    kept = list(words)
    for word in [w for w in words if w.startswith("val=")]:
        at = kept.index(word)
        kept[at - 1 : at + 1] = []
    if "fib25block" in words:
        at = kept.index("train=:,:,0:420")
        kept[at : at + 1] = ["train=:,:,0:372", "--split", "val=:,:,380:420"]
    return kept


if __name__ == "__main__":
    raise SystemExit(main())
