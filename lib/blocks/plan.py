"""What a blockwise run does: source, box, cuts, contrast, weights and settings, written down.

The plan is made once and lies beside the output; every task, in whatever process, reads it
there. The same command again finds it and goes on; a command that would do something else is
refused with what differs.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lib.configs.settings import Settings
from lib.volumes.atomic import write_json
from lib.volumes.boxes import Box, Triple, box_origin, box_shape
from lib.volumes.errors import VolumeError
from lib.volumes.frames import ViewerFrame
from lib.volumes.writers.ome_zarr import LabelImage

FOLDER = ".neuropil"
FORMAT = 1
Task = Literal["segmentation", "instances", "both"]
LAYERS = {"segmentation": ("classes",), "instances": ("objects",), "both": ("classes", "objects")}
FRAGMENTS, FINE = "fragments", "fine"
"""What objects are joined of, and the classes that cells are told by; arrays without coarser
resolutions."""
DTYPES: dict[str, np.dtype[Any]] = {
    "classes": np.dtype(np.uint8), FINE: np.dtype(np.uint8),
    "objects": np.dtype(np.uint64), FRAGMENTS: np.dtype(np.uint64),
}  # fmt: skip
PROCESS_BYTES = 900 * 2**20
"""A process with torch, the network and one window at work."""
TILE_FACTOR = 3.0
"""Times the outputs held: their sums, what is blended, what is decoded."""
CLASSES_BYTES, OBJECTS_BYTES = 3, 40
"""Of each voxel of a core, while it is worked on."""
LEAST_PACKED = 0.002
"""Bytes a voxel of label images that pack very well."""


@dataclass(frozen=True)
class BlockPlan:
    """One blockwise run.

    Args:
        source: PATH or address, with :DATASET.
        source_shape: (x, y, z) of the source.
        origin: of the source's first voxel in its own frame.
        voxel_size_nm: (x, y, z).
        box: what is predicted, voxels counted from the source's first one.
        core: voxels that one block writes; one shard.
        chunk: voxels that are read at once.
        contrast: the source's window of intensities.
        task: what is predicted.
        level: of classes.
        weights: path of the weights file.
        weights_sha256: of its content.
        inference: settings that the result depends on.
        tile_bytes: most outputs held at once; the result does not depend on it.
        scale: what counts as a boundary, (strong, inside), for objects; None without.
        device: that was asked for; "" for what a worker has.
        learned: identity of what a study learned and the run uses; "" without.
    """

    source: str
    source_shape: Triple
    origin: Triple
    voxel_size_nm: tuple[float, float, float]
    box: Box
    core: Triple
    chunk: Triple
    contrast: tuple[float, float]
    task: Task
    level: str
    weights: str
    weights_sha256: str
    inference: dict[str, Any]
    tile_bytes: int
    scale: tuple[float, float] | None = None
    device: str = ""
    learned: str = ""

    @property
    def shape(self) -> Triple:
        """Extent of what is predicted."""
        return box_shape(self.box)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the label images that viewers are to see."""
        return LAYERS[self.task]

    @property
    def by_object(self) -> bool:
        """Whether classes are those of whole cells."""
        return self.level == "object" and "classes" in self.layers

    @property
    def joins(self) -> bool:
        """Whether fragments are found and joined to objects."""
        return "objects" in self.layers or self.by_object

    @property
    def written(self) -> tuple[str, ...]:
        """Names of all arrays."""
        fine = (FINE,) if self.by_object else ()
        return (*self.layers, *fine, FRAGMENTS) if self.joins else self.layers

    def worker_bytes(self) -> int:
        """What a worker needs at most, an estimate; benchmarks/blockwise.py measures it."""
        core = math.prod(self.core)
        per_voxel = OBJECTS_BYTES if self.joins else CLASSES_BYTES
        return int(PROCESS_BYTES + TILE_FACTOR * self.tile_bytes + core * per_voxel)

    def least_disk_bytes(self) -> int:
        """Of the output, however well it packs."""
        return int(math.prod(self.shape) * LEAST_PACKED * len(self.written))

    def image(self, out: Path, layer: str) -> LabelImage:
        """One of the label images of the output."""
        place = [o + b for o, b in zip(self.origin, box_origin(self.box), strict=True)]
        x, y, z = (p * v for p, v in zip(place, self.voxel_size_nm, strict=True))
        return LabelImage(
            out / layer, self.shape, DTYPES[layer], self.chunk, self.core, self.voxel_size_nm,
            (x, y, z), layer, layer not in (FRAGMENTS, FINE),
        )  # fmt: skip

    def write(self, out: Path) -> None:
        """Put the plan beside the output."""
        write_json(plan_path(out), {"format": FORMAT, **asdict(self)})

    def differences(self, other: BlockPlan) -> list[str]:
        """What another plan would do otherwise, in words."""
        told = []
        for field in fields(self):
            if field.name in ("tile_bytes", "weights", "device"):
                continue  # files may move; their content counts
            one, two = getattr(self, field.name), getattr(other, field.name)
            if field.name == "inference":
                keys = sorted(k for k in {*one, *two} if one.get(k) != two.get(k))
                told += [f"inference.{k} {one.get(k)!r}, now {two.get(k)!r}" for k in keys]
            elif field.name == "learned" and one != two:
                told.append(f"study heads {one or '(none)'}, now {two or '(none)'}")
            elif one != two:
                told.append(f"{field.name} {one!r}, now {two!r}")
        return told


def plan_path(out: Path) -> Path:
    """Where the plan of an output lies."""
    return out / FOLDER / "plan.json"


def learned_path(out: Path) -> Path:
    """Where a run keeps what a study had learned when it began: the study goes on learning."""
    return out / FOLDER / "learned.pt"


def read_plan(out: Path) -> BlockPlan | None:
    """The plan of an output; None where there is none.

    Raises:
        VolumeError: it cannot be read, or is of another version.
    """
    path = plan_path(out)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError("made by another version")
        box = tuple((int(a), int(b)) for a, b in data.pop("box"))
        listed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return BlockPlan(**{**listed, "box": box})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise VolumeError(
            path, f"not a readable plan ({error})", remedy="start anew in another --out"
        ) from error


def cut(frame: ViewerFrame, shape: Triple, settings: Settings) -> tuple[Triple, Triple]:
    """Core and chunk of a run, in the source's voxels.

    Cores are nearly even and whole chunks, chunks whole voxels of the network.

    Args:
        frame: of the source.
        shape: of what is predicted.
        settings: `blocks.core` and `blocks.chunk`, in the network's voxels and axes.
    """
    core, chunk = [0, 0, 0], [0, 0, 0]
    axes = zip(frame.order, frame.bins, frame.splits, strict=True)
    for i, (axis, bins, splits) in enumerate(axes):
        part = max(1, settings.blocks.chunk[i] // splits) * bins
        part = min(part, _up(shape[axis], bins))
        wanted = max(part, settings.blocks.core[i] * bins // splits)
        count = math.ceil(shape[axis] / wanted)
        core[axis] = _up(math.ceil(shape[axis] / count), part)
        chunk[axis] = part
    return (core[0], core[1], core[2]), (chunk[0], chunk[1], chunk[2])


def _up(n: int, multiple: int) -> int:
    return math.ceil(n / multiple) * multiple
