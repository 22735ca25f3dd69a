"""Peak memory of importing a small crop of a large source, for each kind of file.

    python benchmarks/import_memory.py [--gib 4] [--only hdf5 tiff ...]

Makes its own source (4 GiB of 8 bit greys, x by y by z = 2048 x 2048 x 1024, with ids of 32
bits beside it in the HDF5 case), imports a crop of 64 MiB in a process of its own and prints
that process's largest resident memory, the time, and both again for an import without
voxels (an empty process), which is what the libraries alone take.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore as ts
import tifffile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 2048
CROP = "768:1280,768:1280,{}:{}"
CROP_DEPTH = 256

CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import lib.volumes.commands
from lib.commands import main
status = main(["import", *sys.argv[2:]]) if len(sys.argv) > 2 else 0
# Not getrusage: its largest resident size survives exec, so the parent's would count.
peak = next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(json.dumps({"peak_mib": int(peak) / 1024, "status": status}))
"""


def sections(depth: int) -> Any:
    """Sections that look a little like tissue: compressible, no two alike, made quickly."""
    rng = np.random.default_rng(0)
    base = rng.integers(60, 190, (WIDTH, WIDTH), dtype=np.uint8)
    for z in range(depth):
        yield np.roll(base, 7 * z, axis=0)


def write_hdf5(folder: Path, depth: int) -> str:
    """CREMI-style: raw and ids, chunked and plain."""
    shape = (depth, WIDTH, WIDTH)
    with h5py.File(folder / "v.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", shape, "u1", chunks=(16, 128, 128))
        ids = file.create_dataset(
            "volumes/labels/neuron_ids", shape, "u4", chunks=(16, 128, 128), compression="gzip",
            compression_opts=1,
        )  # fmt: skip
        raw.attrs["resolution"] = [10.0, 10.0, 10.0]
        for z, block in _blocks(depth, 16):
            raw[z : z + 16] = block
            if abs(z - depth // 2) <= CROP_DEPTH // 2 + 16:  # the rest is never read
                ids[z : z + 16, 640:1408, 640:1408] = np.uint32(z // 16 + 1)
    return str(folder / "v.h5")


def write_tiff(folder: Path, depth: int) -> str:
    """A plain BigTIFF stack."""
    tifffile.imwrite(
        folder / "v.tif", sections(depth), shape=(depth, WIDTH, WIDTH), dtype=np.uint8,
        bigtiff=True, photometric="minisblack",
    )  # fmt: skip
    return str(folder / "v.tif")


def write_nifti(folder: Path, depth: int) -> str:
    """An uncompressed NIfTI."""
    sys.path.insert(0, str(ROOT))
    from lib.volumes.nifti import nifti_header

    with (folder / "v.nii").open("wb") as file:
        file.write(nifti_header((WIDTH, WIDTH, depth), np.uint8, (10.0, 10.0, 10.0)))
        for page in sections(depth):
            file.write(page.tobytes())
    return str(folder / "v.nii")


def write_zarr(folder: Path, depth: int) -> str:
    """Zarr 2 with chunks of 64 cubed."""
    store = ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/v.zarr/"},
         "metadata": {"shape": [depth, WIDTH, WIDTH], "chunks": [64, 64, 64], "dtype": "|u1"}},
        create=True,
    ).result()  # fmt: skip
    for z, block in _blocks(depth, 64):
        store[z : z + 64].write(block).result()
    return str(folder / "v.zarr")


SOURCES: dict[str, Callable[[Path, int], str]] = {
    "hdf5": write_hdf5, "tiff": write_tiff, "nifti": write_nifti, "zarr": write_zarr,
}  # fmt: skip


def _blocks(depth: int, size: int) -> Any:
    block: list[NDArray[np.uint8]] = []
    for z, page in enumerate(sections(depth)):
        block.append(page)
        if len(block) == size or z == depth - 1:
            yield z + 1 - len(block), np.stack(block)
            block = []


def run(*words: str) -> tuple[float, float]:
    """Peak memory (MiB) and seconds of an import in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT), *words], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    answer = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout else {}
    if answer.get("status") != 0:
        raise RuntimeError(done.stderr)
    return answer["peak_mib"], seconds


def main() -> None:
    """Make each source, import its crop, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0, help="size of the source")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    args = parser.parse_args()
    depth = max(CROP_DEPTH, round(args.gib * 2**30 / WIDTH**2))
    low = (depth - CROP_DEPTH) // 2
    crop = CROP.format(low, low + CROP_DEPTH)
    base, seconds = run()
    print(f"{'source':10} {'size GiB':>9} {'peak MiB':>9} {'seconds':>8}")
    print(f"{'(nothing)':10} {0:9.2f} {base:9.0f} {seconds:8.1f}")
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="neuropil-memory-") as temporary:
            folder = Path(temporary)
            source = SOURCES[name](folder, depth)
            size = math.fsum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            words = ["--crop", crop, "--voxel-size-nm", "10"]
            peak, seconds = run(source, "--studies", str(folder / "study"), *words)
            print(f"{name:10} {size / 2**30:9.2f} {peak:9.0f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
