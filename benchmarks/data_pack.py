"""Training data as a few small files: for a machine that gets no more than what is carried there.

    python benchmarks/data_pack.py pack PACK_DIR STUDIES_DIR ...     studies -> parts
    python benchmarks/data_pack.py unpack PACK_DIR STUDIES_DIR       parts -> one study
    python benchmarks/data_pack.py cut FILE PARTS_DIR                any file -> parts, and back:
    python benchmarks/data_pack.py join PARTS_DIR FILE

Images become JPEG XL, section by section, of 8 bits and a visible loss of about one grey level in
a hundred, which is below their noise; labels are kept exactly. Parts stay under 16 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastremap
import imagecodecs
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy, load_hierarchy  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402
from lib.volumes.record import ItemRecord  # noqa: E402
from lib.volumes.study import Study, StudyItem  # noqa: E402

PART_BYTES = 15 * 2**20
LOSS = 4.0
"""Distance of JPEG XL: 1 is hardly visible; at 4 grey values change by two in a hundred, mostly
noise, and the FIB-25 block takes 13 of its 100 MB."""

SECTIONS = 32
"""Sections of labels that are compressed together."""


def pack(roots: list[Path], folder: Path, hierarchy: LabelHierarchy) -> int:
    """Write the labelled items of studies as parts.

    Returns:
        bytes of all parts.
    """
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for root in roots:
            for item in Study(root, hierarchy).items():
                if item.has_label("final") or item.has_label("instance"):
                    _add(archive, item)
    return cut(written.getvalue(), folder)


def unpack(folder: Path, study: Study) -> int:
    """Write the items of a pack into a study.

    Returns:
        how many there are.
    """
    with zipfile.ZipFile(BytesIO(join(folder))) as archive:
        names = sorted({name.partition("/")[0] for name in archive.namelist()})
        for name in names:
            record = ItemRecord.from_dict(json.loads(archive.read(f"{name}/record.json")))
            shape = tuple(json.loads(archive.read(f"{name}/shape.json")))
            image = np.empty(shape, np.uint8)
            for z in range(shape[2]):
                image[..., z] = imagecodecs.jpegxl_decode(archive.read(f"{name}/image/{z}"))
            palette = np.array(json.loads(archive.read(f"{name}/palette.json")), np.int32)
            sets = palette[_read(archive, f"{name}/sets", shape)]
            ids = _read(archive, f"{name}/ids", shape).astype(np.int64) + IGNORE_INDEX
            study.add_item(
                record.id, image, record.voxel_size_nm, sets, ids,
                split=record.split, true_instances=record.true_instances,
                fully_annotated=record.fully_annotated,
                bright_membranes=record.bright_membranes, extra=record.extra,
            )  # fmt: skip
    return len(names)


def _add(archive: zipfile.ZipFile, item: StudyItem) -> None:
    """One item: record, image, class sets as indices of a palette, ids from 0 for unknown."""
    image, record = item.open_image(), item.record
    window = intensity_window(image)
    archive.writestr(f"{item.id}/record.json", json.dumps(record.to_dict()))
    archive.writestr(f"{item.id}/shape.json", json.dumps(item.shape))
    for z in range(item.shape[2]):
        section = np.asarray(image[:, :, z : z + 1])[..., 0]
        grey = np.rint(255 * normalize(section, window)).clip(0, 255).astype(np.uint8)
        coded = imagecodecs.jpegxl_encode(np.ascontiguousarray(grey), distance=LOSS, effort=3)
        archive.writestr(f"{item.id}/image/{z}", coded)
    sets = item.read_class_sets()
    palette = fastremap.unique(sets)
    archive.writestr(f"{item.id}/palette.json", json.dumps(palette.tolist()))
    _write(archive, f"{item.id}/sets", np.searchsorted(palette, sets).astype(np.uint32))
    ids, _ = fastremap.renumber(item.read_instances() - IGNORE_INDEX, preserve_zero=True)
    _write(archive, f"{item.id}/ids", ids.astype(np.uint32))


def _write(archive: zipfile.ZipFile, name: str, values: NDArray[np.uint32]) -> None:
    """Labels as what changes from section to section."""
    for z, slab in _slabs(values):
        change = np.ascontiguousarray(np.moveaxis(slab, 2, 0))
        change[1:] ^= change[:-1].copy()
        archive.writestr(f"{name}/{z}", imagecodecs.zstd_encode(change.tobytes(), 9))


def _read(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    values = np.empty(shape, np.uint32)
    for z, slab in _slabs(values):
        raw = imagecodecs.zstd_decode(archive.read(f"{name}/{z}"))
        change = np.frombuffer(raw, np.uint32).reshape(-1, *shape[:2]).copy()
        slab[...] = np.moveaxis(np.bitwise_xor.accumulate(change, axis=0), 0, 2)
    return values


def _slabs(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for z in range(0, values.shape[2], SECTIONS):
        yield z, values[..., z : z + SECTIONS]


def cut(data: bytes, folder: Path) -> int:
    """Write bytes as parts of a folder, in place of any that are there; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*"):
        old.unlink()
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        (folder / f"part-{number:02d}").write_bytes(data[start : start + PART_BYTES])
    return len(data)


def join(folder: Path) -> bytes:
    """The bytes that were cut.

    Raises:
        ValueError: no parts, or one missing.
    """
    parts = sorted(folder.glob("part-*"))
    expected = [f"part-{number:02d}" for number in range(len(parts))]
    if not parts or [p.name for p in parts] != expected:
        raise ValueError(
            f"{folder}: found parts {', '.join(p.name for p in parts) or 'none'}; expected "
            "part-00 and on without a gap"
        )
    return b"".join(p.read_bytes() for p in parts)


def main() -> int:
    """One of the four."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pack", "unpack", "cut", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="+")
    args = parser.parse_args()
    hierarchy = load_hierarchy()
    try:
        if args.what == "pack":
            size = pack(args.target, args.source, hierarchy)
            print(f"{args.source}: {size / 2**20:.1f} MiB")
        elif args.what == "unpack":
            print(
                f"{args.target[0]}: {unpack(args.source, Study(args.target[0], hierarchy))} items"
            )
        elif args.what == "cut":
            cut(args.source.read_bytes(), args.target[0])
        else:
            args.target[0].write_bytes(join(args.source))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
