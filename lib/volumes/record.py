"""What a study knows about one item beside its image: the file `<id>.neuropil.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from lib.volumes.errors import VolumeError
from lib.volumes.listing import RULE, id_fault

SUFFIX = ".neuropil.json"
ASSUMED_NM = (10.0, 10.0, 10.0)
"""The voxel size of an image that states none: the network then sees its voxels as they are."""
ASSUMED = (
    "no voxel size is known; its voxels are taken as they are, as if of 10 nm. Objects and classes "
    "may be wrong for that: state the size in the image, or as voxel_size_nm in its record"
)
FORMAT = 1
SYNTHETIC = "synthetic neuropil"
"""How the source of a synthetic image is told."""

Split = Literal["train", "val"]


@dataclass(frozen=True)
class ItemRecord:
    """One study item's record.

    Args:
        id: name of the item, see `check_id`.
        voxel_size_nm: (x, y, z) in nm.
        origin_voxels: place of the first voxel in the source volume, (x, y, z) voxels.
        source: where it came from: `path`, `dataset`, `shape` (x, y, z), `origin`, and
            `offset_nm`, the place of its first voxel in physical space where it states one.
        fully_annotated: voxels without a label are none of the annotated classes.
        class_sets: codes of the `final` map for class sets that are neither a class nor a
            group: code -> class names. Codes are only ever added.
        known_share: part of the voxels for each class set that occurs, "unknown" included.
        split: "train", "val" or None (the trainer decides).
        true_instances: instance ids are ground truth in 3D; False when derived or 2D only.
        bright_membranes: whether membranes are brighter than what they enclose; None: as the
            study's settings say.
        extra: keys of other versions and tools, kept as they are.
        size_assumed: nobody stated the voxel size; it is not written down.
    """

    id: str
    voxel_size_nm: tuple[float, float, float]
    origin_voxels: tuple[int, int, int] = (0, 0, 0)
    source: dict[str, Any] = field(default_factory=dict)
    fully_annotated: bool = False
    class_sets: dict[int, list[str]] = field(default_factory=dict)
    known_share: dict[str, float] = field(default_factory=dict)
    split: Split | None = None
    true_instances: bool = True
    bright_membranes: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    size_assumed: bool = False

    @property
    def synthetic(self) -> bool:
        """Whether the image was made by `main.py demo`, not taken of tissue."""
        return str(self.source.get("path", "")).startswith(SYNTHETIC)

    def __post_init__(self) -> None:
        check_id(self.id)
        check_voxel_size(self.voxel_size_nm, self.id)
        if self.split not in ("train", "val", None):
            raise ValueError(f"item {self.id}: split {self.split!r}; expected train, val or none")
        if not isinstance(self.bright_membranes, bool | None):
            raise ValueError(
                f"item {self.id}: bright_membranes {self.bright_membranes!r}; expected true, "
                "false or none"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the fields, and the extra keys beside them."""
        own = (f.name for f in fields(self) if f.name not in _BESIDE)
        data = {name: getattr(self, name) for name in own}
        data["voxel_size_nm"] = list(self.voxel_size_nm)
        if self.size_assumed:
            del data["voxel_size_nm"]
        if self.bright_membranes is None:
            del data["bright_membranes"]
        data["origin_voxels"] = list(self.origin_voxels)
        data["class_sets"] = {str(code): names for code, names in self.class_sets.items()}
        return {**self.extra, **data, "format": FORMAT}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ItemRecord:
        """Read the JSON form.

        Raises:
            ValueError: a missing field or a value of another kind.
        """
        names = {f.name for f in fields(ItemRecord)} - _BESIDE
        for name in ("id", "voxel_size_nm"):
            if name not in data:
                raise ValueError(f"{name} is missing")
        if data.get("format", FORMAT) != FORMAT:
            raise ValueError(f"format {data['format']!r}; this version reads format {FORMAT}")
        known = {k: v for k, v in data.items() if k in names}
        extra = {k: v for k, v in data.items() if k not in names and k != "format"}
        try:
            x, y, z = (float(v) for v in data["voxel_size_nm"])
            known["voxel_size_nm"] = (x, y, z)
            a, b, c = (int(v) for v in data.get("origin_voxels", (0, 0, 0)))
            known["origin_voxels"] = (a, b, c)
            known["class_sets"] = {
                int(code): [str(n) for n in names_]
                for code, names_ in data.get("class_sets", {}).items()
            }
            return ItemRecord(**known, extra=extra)
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def warning(self) -> str:
        """What everyone who uses the item should be told; "" for nothing."""
        return f"{self.id}: {ASSUMED}" if self.size_assumed else ""

    def membranes_are_bright(self, otherwise: bool) -> bool:
        """Whether membranes are brighter than what they enclose; what holds otherwise is given."""
        return otherwise if self.bright_membranes is None else self.bright_membranes

    def changed(self, **fields_: Any) -> ItemRecord:
        """A copy with some fields replaced."""
        return replace(self, **fields_)


_BESIDE = frozenset({"extra", "size_assumed"})
"""Fields that are no keys of the JSON form."""


def check_id(item_id: str) -> None:
    """Refuse ids that file names cannot carry.

    Raises:
        ValueError: what is allowed.
    """
    if fault := id_fault(item_id):
        raise ValueError(f"item id {item_id!r}: {fault}; expected {RULE}")


def check_voxel_size(voxel_size_nm: tuple[float, ...], where: Path | str) -> None:
    """Refuse voxel sizes that are no lengths of electron microscopy.

    Raises:
        VolumeError: not three finite numbers between 0.01 nm and 1 mm.
    """
    good = len(voxel_size_nm) == 3 and all(
        math.isfinite(v) and 0.01 <= v <= 1e6 for v in voxel_size_nm
    )
    if not good:
        raise VolumeError(
            where,
            f"voxel size {tuple(voxel_size_nm)} nm",
            "three lengths (x, y, z) between 0.01 and 1000000 nm",
            "give the right one with --voxel-size-nm X Y Z",
        )


def record_path(root: Path, item_id: str) -> Path:
    """Where an item's record lies in a study."""
    return root / f"{item_id}{SUFFIX}"


def read_record(
    path: Path, item_id: str, voxel_size_nm: tuple[float, float, float] | None
) -> ItemRecord:
    """Read an item's record; a short one, {"fully_annotated": true}, is a record as well.

    Args:
        item_id: the item it belongs to.
        voxel_size_nm: what the image says, for records without a voxel size.

    Returns:
        With an assumed size where neither the record nor the image gives one.

    Raises:
        VolumeError: the file is no record, or the item's name or voxel size cannot be used.
    """
    try:
        data = json.loads(_text_of(path)) if path.exists() else {}
        if not isinstance(data, dict):
            raise ValueError("a JSON object is needed")
        if data.setdefault("id", item_id) != item_id:
            raise ValueError(f"it belongs to item {data['id']!r}")
        assumed = "voxel_size_nm" not in data and voxel_size_nm is None
        if "voxel_size_nm" not in data:
            data["voxel_size_nm"] = voxel_size_nm or ASSUMED_NM
        return ItemRecord.from_dict(data).changed(size_assumed=assumed)
    except (ValueError, RecursionError, OSError) as error:
        if not path.exists():
            raise  # it is about the image
        raise VolumeError(
            path, f"not a readable item record ({error})", remedy="import the item again"
        ) from error


def _text_of(path: Path) -> str:
    """A record's text, also as Windows' editors save it.

    Raises:
        ValueError: it is no file; to open a pipe would wait for ever.
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    return path.read_text(encoding="utf-8-sig")
