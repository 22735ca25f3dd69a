"""Submit label files that were damaged at random, headers first, and start again after them.

    .venv/bin/python benchmarks/fuzz_labels.py --count 1000

Whatever a file holds, its submission is taken or refused in words, within the limits of time and
memory, its image takes the next submission, and the next start finds every version decided.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from fastapi import HTTPException

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.annotation.versions import versions
from lib.configs.settings import Settings
from lib.labels.hierarchy import load_hierarchy
from lib.server.submissions import Submissions
from lib.volumes.study import Study

SHAPE = (24, 20, 10)
SIZE_NM = (8.0, 8.0, 40.0)
INFO = [{"name": n, "idx": i} for i, n in enumerate(("axon", "organelle", "axon 17"), 1)]
NUMBERS = (
    "-1", "0", "1", "7", "255", "32767", "65536", "100000000", "4294967295", "1e30", "1e-30",
    "-1e9", "nan", "inf", "-inf", "none", "", "x", "9" * 400,
)  # fmt: skip
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 1e-40, 3.5e38)
LINES = (
    b"data file: /etc/passwd", b"data file: LIST", b"datafile: x%d.raw 1 9 1",
    b"line skip: 100000000", b"byte skip: -1", b"byte skip: 100000000", b"lineskip: -5",
    b"endian: big", b"endian: middle", b"encoding: hex", b"encoding: bzip2", b"encoding: text",
    b"type: block", b"block size: 1000000000", b"kinds: list domain domain domain",
    b"space: right-up", b"spacings: nan nan nan", b"Segment0_LabelValue:=x",
    b"Segment1_Layer:=999999999", b"Segment0_Name:=\xff\xfe", b"Segment7_Name:=axon", b"#", b":",
    b"content", b"sizes: 32767 32767 32767", b"dimension: 16",
)  # fmt: skip


def originals() -> dict[str, bytes]:
    """One good file of each kind, by its ending."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, SHAPE).astype(np.uint8)
    plain = nib.Nifti1Image(labels, np.diag([*SIZE_NM, 1.0])).to_bytes()
    found = {".nii": plain, ".nii.gz": gzip.compress(plain)}
    lps = np.diag(SIZE_NM) * np.array([-1, -1, 1])
    fields = {"space": "left-posterior-superior", "space directions": lps,
              "space origin": [0.0, 0.0, 0.0]}  # fmt: skip
    for encoding, ending in (("raw", ".nrrd"), ("gzip", ".seg.nrrd")):
        segments = {
            f"Segment{i}_{key}": str(value)
            for i, entry in enumerate(INFO)
            for key, value in (("ID", f"S{i}"), ("Name", entry["name"]), ("LabelValue", i + 1),
                               ("Layer", 0))
        }  # fmt: skip
        header = {**fields, "encoding": encoding, **(segments if ending == ".seg.nrrd" else {})}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.nrrd"
            nrrd.write(str(path), labels, header)
            found[ending] = path.read_bytes()
    return found


def mutated(rng: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """(ending, damaged file): three of four in the header, the others anywhere.

    Args:
        rng: the same one gives the same files.
    """
    good = originals()
    for _ in range(count):
        ending = str(rng.choice(sorted(good)))
        data = good[ending]
        if rng.random() < 0.25:
            yield ending, _anywhere(rng, data)
        elif ending == ".nii.gz":
            yield ending, gzip.compress(_nifti_header(rng, good[".nii"]))
        elif ending == ".nii":
            yield ending, _nifti_header(rng, data)
        else:
            yield ending, _nrrd_header(rng, data)


def _anywhere(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes changed, taken out, put in, or the end cut off."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, max(1, len(out))))
        what = rng.integers(0, 4)
        if what == 0 and out:
            out[min(at, len(out) - 1)] = int(rng.integers(0, 256))
        elif what == 1:
            del out[at : at + int(rng.integers(1, 64))]
        elif what == 2:
            out[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            del out[at:]
    return bytes(out)


def _nifti_header(rng: np.random.Generator, data: bytes) -> bytes:
    """Fields of the header set to what no file has."""
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(data), check=False)
    for _ in range(int(rng.integers(1, 4))):
        key = str(rng.choice(sorted(header.keys())))
        field = header[key]
        if field.dtype.kind == "f":
            value = np.array(field, field.dtype)
            value.flat[int(rng.integers(0, value.size))] = rng.choice(FLOATS)
            header[key] = value
        elif field.dtype.kind in "iu":
            info = np.iinfo(field.dtype)
            value = np.array(field, field.dtype)
            odd = (info.min, info.max, 0, 1, min(info.max, 16), int(rng.integers(0, info.max)))
            value.flat[int(rng.integers(0, value.size))] = odd[int(rng.integers(0, len(odd)))]
            header[key] = value
        else:
            header[key] = rng.bytes(field.dtype.itemsize)
    return header.binaryblock + data[348:]


def _nrrd_header(rng: np.random.Generator, data: bytes) -> bytes:
    """Numbers, lines and whole fields of the header changed."""
    head, _, voxels = data.partition(b"\n\n")
    lines = head.split(b"\n")
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(lines)))
        what = rng.integers(0, 5)
        if what == 0:
            number = str(rng.choice(NUMBERS)).encode()
            lines[at] = re.sub(rb"-?\d+(\.\d+)?", number, lines[at], count=1)
        elif what == 1 and len(lines) > 1:
            del lines[at]
        elif what == 2:
            lines.insert(at, lines[int(rng.integers(0, len(lines)))])
        elif what == 3:
            lines.insert(at, LINES[int(rng.integers(0, len(LINES)))])
        else:
            lines[at] = _anywhere(rng, lines[at])
    return b"\n".join(lines) + b"\n\n" + voxels


def make_study(root: Path) -> Study:
    """Two unlabelled items."""
    study = Study(root, load_hierarchy())
    image = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
    for name in ("one", "two"):
        study.add_item(name, image, SIZE_NM)
    return study


def main() -> int:
    """Run it; exit status 1 where a file was answered with anything but words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fates: Counter[str] = Counter()
    slowest, faults = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder) / "study")
        settings = Settings.model_validate({"server": {"submission_seconds": 20.0}})
        server = Submissions(study.root, study.hierarchy, settings)
        for n, (ending, data) in enumerate(mutated(np.random.default_rng(args.seed), args.count)):
            upload = Path(folder) / f"upload{ending}"
            upload.write_bytes(data)
            begin = time.monotonic()
            try:
                server("one", upload, {"label_info": INFO})
                fates["taken"] += 1
            except (ValueError, HTTPException) as error:
                fates["stopped" if "no labels could be derived" in str(error) else "refused"] += 1
            except Exception as error:
                faults += 1
                print(f"file {n} ({ending}): {type(error).__name__}: {error}", file=sys.stderr)
            slowest = max(slowest, time.monotonic() - begin)
        begin = time.monotonic()
        again = Submissions(study.root, study.hierarchy, settings)
        pending = again.recover()
        start = time.monotonic() - begin
        upload = Path(folder) / "good.nii.gz"
        upload.write_bytes(originals()[".nii.gz"])
        again("one", upload, {"label_info": INFO})
        kept = len(versions(study, "one"))
    print(
        f"{args.count} files: {dict(fates)}, {faults} faults, {kept - 1} kept; the slowest took "
        f"{slowest:.2f} s; the next start {start:.2f} s, pending {pending}"
    )
    return 1 if faults or pending else 0


if __name__ == "__main__":
    raise SystemExit(main())
