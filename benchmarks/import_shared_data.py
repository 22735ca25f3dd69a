"""Import all of the shared data into a study, split as its README says.

    python benchmarks/import_shared_data.py STUDIES_DIR [--only fib25 vnc ...]

Every data set is one `python main.py import` command (one for each image of AxonDeepSeg); the
commands are printed before they run. The data are looked for in $NEUROPIL_DATA, else in
../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.commands import main as neuropil  # noqa: E402

MAPPINGS = ROOT / "benchmarks" / "mappings"
NAMES = ("fib25", "vnc", "sbem", "axondeepseg", "gala")

SBEM_VOXEL_NM = ("7.2", "7.2", "24")
"""An assumption: the source states none. The median section of a mitochondrion is 37 pixels
across (diameter of a disc of its area), which 7.2 nm makes 268 nm; in the VNC volume, whose
voxel size is known, it is 244 nm. The depth is a usual cutting thickness of the method.
Figures that depend on physical size must say so."""

SBEM_MYELIN = {"mass": "0:640,680:1024,11:16", "ring": "780:1024,380:680,0:16"}
"""Myelin in the training sections that looks like mitochondria (x, y, z): in items of its own,
so that a recipe can draw it more often (group `sbem_myelin`)."""

DEV_RAT = "rat6"


def data_folder() -> Path:
    """Where the shared data lie."""
    return Path(os.environ.get("NEUROPIL_DATA", ROOT.parent / "shared" / "data"))


def commands(data: Path, only: list[str]) -> Iterator[list[str]]:
    """Arguments of `import` for each data set, without --studies."""
    if "fib25" in only:
        yield [
            f"{data}/fib25_sample2.h5", "--id", "fib25",
            "--split", "train=:,:,0:200", "--split", "val=:,:,210:250",
        ]  # fmt: skip
    if "vnc" in only:
        yield [
            f"{data}/vnc_raw.tif", "--id", "vnc", "--semantic", f"{data}/vnc_labels.tif",
            "--mapping", f"{MAPPINGS}/vnc.yaml",
            "--instance", f"{data}/vnc_neurites_derived.tif", "--derived-instances",
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
            yield _axondeepseg(image)
    if "gala" in only:
        for name, split in (("train", "train"), ("test", "val")):
            yield [
                f"{data}/gala_{name}.h5", "--id", f"gala-{name}", "--fully-annotated",
                "--split", split,
            ]  # fmt: skip


def _axondeepseg(image: Path) -> list[str]:
    name = image.name.removesuffix("_SEM.png").replace("sub-", "").replace("sample-", "")
    label = image.with_name(f"{image.stem}_seg-axonmyelin-manual.png")
    split = "val" if DEV_RAT in name else "train"
    return [
        str(image), "--id", f"axondeepseg-{name.replace('_', '-')}", "--semantic", str(label),
        "--mapping", f"{MAPPINGS}/axondeepseg.yaml",
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
    args = parser.parse_args()
    data = data_folder()
    if not data.is_dir():
        print(f"no data at {data}: set NEUROPIL_DATA", file=sys.stderr)
        return 1
    for words in commands(data, args.only):
        line = ["import", *words, "--studies", args.studies]
        line += ["--replace"] if args.replace else []
        print("python main.py", shlex.join(line), flush=True)
        if status := neuropil(line):
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
