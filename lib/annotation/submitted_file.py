"""Read a label map that a viewer sent, onto the grid of its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.annotation.segments import Segment, number_segments
from lib.volumes.boxes import Box, Triple, box_slices, intersect, shift_box, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.nrrd_file import (
    nrrd_affine,
    nrrd_type,
    read_nrrd_header,
    read_nrrd_voxels,
)
from lib.volumes.readers.opening import open_file
from lib.volumes.source import Source

GRID_TOLERANCE = 0.2
"""Voxels; grids that differ by less differ by the rounding of file headers."""

MOST_IMAGES = 4
MOST_VOXELS_FREE = 1 << 20
"""A label's grid may have so many times its image's voxels, and these beyond."""

LARGEST_VALUE = 2**32 - 1

MOST_LAYER_BYTES = 64
"""Of all its layers together, for a voxel of its image."""

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class SubmittedMap:
    """A submission's voxels on its image's grid.

    Args:
        layers: (X, Y, Z) arrays, one for each layer.
        segments: in the annotator's order.
        present: positions of the segments that have voxels.
        reach: the part of the image that it is of.
        clipped: painted voxels outside the image, which are dropped.
        uneven: what to tell of a plain map of another shape than its image; "" for none.
    """

    layers: list[NDArray[Any]]
    segments: list[Segment]
    present: frozenset[int]
    reach: Box
    clipped: int
    uneven: str = ""


def read_submitted(
    path: Path, label_info: Sequence[Mapping[str, Any]] | None, image: Source
) -> SubmittedMap:
    """Read a label map or a .seg.nrrd segmentation.

    Args:
        path: .nii, .nii.gz, .nrrd or .seg.nrrd (layers, names in its header).
        label_info: names of the segments, for files that hold none.
        image: what was annotated; gives the grid.

    Raises:
        VolumeError: a damaged file, one on another grid, or painted beside its image only.
        ValueError: values that no segment explains, or no names at all.
    """
    layers, affine, own = _read(path, image.shape)
    placed, clipped, reach = [], 0, whole_box(image.shape)
    for layer in layers:
        fitted, lost, place = place_on_grid(layer, affine, image.affine, image.shape, path)
        placed.append(fitted)
        clipped += lost
        # A segmentation with names of its own is cut to what is painted: Slicer writes it so.
        reach = place if own is None else reach
    counts = [_present(layer) for layer in placed]
    if clipped and not any(values.any() for values in counts):
        raise VolumeError(
            path, f"a label of {_extent(layers[0].shape)} voxels, painted beside its image only",
            f"paint inside the image's {_extent(image.shape)} voxels",
            "submit it on the image's own voxels",
        )  # fmt: skip
    uneven = "" if own is not None else uneven_shapes(layers[0].shape, image.shape)
    if own is None:
        if not label_info:
            raise VolumeError(
                path, "a label map without names of its segments",
                "label_info: [{name, idx}, ...] in the order of the segments, or a .seg.nrrd",
            )  # fmt: skip
        own = number_segments(label_info, [int(v) for v in counts[0] if v != 0])
    present = {i for i, s in enumerate(own) if s.layer < len(counts) and s.value in counts[s.layer]}
    _check_explained(path, counts, own)
    return SubmittedMap(placed, own, frozenset(present), reach, clipped, uneven)


def uneven_shapes(label: Sequence[int], image: Sequence[int]) -> str:
    """What to tell of a label map whose shape is not its image's; "" where it is."""
    if tuple(label) == tuple(image):
        return ""
    return (
        f"the label has {_extent(label)} voxels, the image {_extent(image)}: it lies where its "
        "geometry says, and says nothing of what lies around it"
    )


def place_on_grid(
    layer: NDArray[Any],
    affine: Affine | None,
    target: Affine | None,
    shape: Triple,
    path: Path,
) -> tuple[NDArray[Any], int, Box]:
    """Bring a label onto its image's grid: axes turned, flipped and cropped as affines say.

    Args:
        layer: (X, Y, Z) values.
        affine, target: (4, 4), voxel to right-anterior-superior; None where not stated.
        shape: of the image.

    Returns:
        (X, Y, Z) of the image's shape, the number of painted voxels outside of it, and the part
        of the image that the label covers.

    Raises:
        VolumeError: the grids do not match (the label was resampled).
    """
    if affine is None or target is None:
        _check_shape(path, layer, shape)
        return layer, 0, whole_box(shape)
    steps = _voxel_steps(affine, target, max(layer.shape))
    if steps is None:
        # A client that writes voxels without geometry leaves the identity.
        if layer.shape == shape and np.allclose(np.abs(affine), np.eye(4)):
            return layer, 0, whole_box(shape)
        raise VolumeError(
            path, f"a label on another grid ({_extent(layer.shape)} voxels)",
            f"the image's grid ({_extent(shape)} voxels)",
            "submit it on the image's own voxels, not resampled",
        )  # fmt: skip
    turn, shift = steps
    axes = [int(np.argmax(abs(turn[i]))) for i in range(3)]
    layer = layer.transpose(axes)
    offset = []
    for i, axis in enumerate(axes):
        if turn[i, axis] < 0:
            layer = np.flip(layer, i)
            offset.append(int(shift[i]) - (layer.shape[i] - 1))
        else:
            offset.append(int(shift[i]))
    if layer.shape == shape and offset == [0, 0, 0]:
        return layer, 0, whole_box(shape)
    return _paste(layer, (offset[0], offset[1], offset[2]), shape)


def _voxel_steps(affine: Affine, target: Affine, longest: int) -> tuple[Affine, Affine] | None:
    """How a label's voxels run through the image's: turn (3, 3) of 0, 1 and -1, and shift (3).

    Returns:
        None where the label's grid is another one.
    """
    relative = np.linalg.inv(target) @ affine
    turn, shift = np.rint(relative[:3, :3]), np.rint(relative[:3, 3])
    # The far corner counts: a spacing that differs a little drifts over a long axis.
    matches = (
        abs(relative[:3, :3] - turn).max() * longest < GRID_TOLERANCE
        and abs(relative[:3, 3] - shift).max() < GRID_TOLERANCE
        and (abs(turn).sum(axis=0) == 1).all()
        and (abs(turn).sum(axis=1) == 1).all()
    )
    return (turn, shift) if matches else None


def _paste(layer: NDArray[Any], offset: Triple, shape: Triple) -> tuple[NDArray[Any], int, Box]:
    out = np.zeros(shape, layer.dtype)
    x, y, z = layer.shape
    place = whole_box((x, y, z), offset)
    common = intersect(place, whole_box(shape))
    kept = 0
    if common is not None:
        a, b, c = offset
        part = layer[box_slices(shift_box(common, (-a, -b, -c)))]
        out[box_slices(common)] = part
        kept = int(np.count_nonzero(part))
    lost = int(np.count_nonzero(layer)) - kept
    return out, lost, common or ((0, 0), (0, 0), (0, 0))


def _read(
    path: Path, image: Triple
) -> tuple[list[NDArray[Any]], Affine | None, list[Segment] | None]:
    """Layers, affine, and the segments that the file itself names."""
    name = path.name.lower()
    if not name.endswith((".nrrd", ".nhdr")):
        source = open_file(path, role="instance")
        try:
            _check_extent(path, source.shape, 1, source.dtype, image)
            return [_integers(path, np.asarray(source))], source.affine, None
        finally:
            source.close()
    header, position = read_nrrd_header(path)
    segments = _named_segments(path, header)
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) == 4 and segments is None:
        raise VolumeError(path, f"four axes {tuple(sizes)}", "a .seg.nrrd with named segments")
    if len(sizes) not in (2, 3, 4):
        raise VolumeError(path, f"axes {tuple(sizes)}", "x, y, z")
    count = sizes[0] if len(sizes) == 4 else 1
    x, y, z = (*sizes[-3:], 1)[:3]
    _check_extent(path, (x, y, z), count, nrrd_type(path, header), image)
    data = _integers(path, read_nrrd_voxels(path, header, position))
    layers = [data[i] for i in range(count)] if len(sizes) == 4 else [data.reshape(x, y, z)]
    return layers, nrrd_affine(header), segments


def _check_extent(path: Path, shape: Triple, layers: int, dtype: Any, image: Triple) -> None:
    """Compare what a header declares with the image, before anything is allocated for it.

    Viewers cut a label to what is painted, or paint a little beyond the image; a label of many
    times its image is neither.
    """
    if prod(shape) > MOST_IMAGES * prod(image) + MOST_VOXELS_FREE:
        raise VolumeError(
            path, f"a label of {_extent(shape)} voxels for an image of {_extent(image)}",
            f"at most {MOST_IMAGES} times the image's voxels",
            "submit it on the image's own voxels",
        )  # fmt: skip
    needed = layers * prod(shape) * np.dtype(dtype).itemsize
    if needed > MOST_LAYER_BYTES * (prod(image) + MOST_VOXELS_FREE):
        raise VolumeError(
            path, f"{layers} layers of {_extent(shape)} voxels, {np.dtype(dtype)}",
            f"at most {MOST_LAYER_BYTES} bytes for a voxel of the image",
            "submit fewer segments at a time",
        )  # fmt: skip


def _named_segments(path: Path, header: Mapping[str, Any]) -> list[Segment] | None:
    """Segments of a .seg.nrrd header; None for a plain NRRD."""
    segments: list[Segment] = []
    while f"Segment{len(segments)}_ID" in header or f"Segment{len(segments)}_Name" in header:
        key = f"Segment{len(segments)}_"
        name = str(header.get(key + "Name", header.get(key + "ID"))).strip()
        try:
            value, layer = int(header.get(key + "LabelValue", 1)), int(header.get(key + "Layer", 0))
        except ValueError as error:
            raise VolumeError(path, f"segment {name!r}: {error}", "whole numbers") from error
        segments.append(Segment(name, value, layer))
    return segments or None


def _integers(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or (data != np.floor(data)).any():
            raise VolumeError(path, "values that are not whole", "a label map")
        if data.size and max(float(data.max()), -float(data.min())) > LARGEST_VALUE:
            raise VolumeError(path, f"value {data.max():g}", f"at most {LARGEST_VALUE}")
        data = data.astype(np.int64 if data.size and data.max() >= 2**31 else np.int32)
    if data.dtype.kind not in "ui" or (data.size and int(data.min()) < 0):
        raise VolumeError(path, f"a map of type {data.dtype}", "label values of 0 and more")
    return data


def _present(layer: NDArray[Any]) -> NDArray[Any]:
    """The values that occur, section by section: a sort of everything takes its memory again."""
    sections = [np.unique(layer[:, :, z]) for z in range(layer.shape[2])]
    values: NDArray[Any] = np.unique(np.concatenate(sections))
    return values


def _check_shape(path: Path, layer: NDArray[Any], shape: Triple) -> None:
    if layer.shape != shape:
        raise VolumeError(
            path, f"a label of {_extent(layer.shape)} voxels", f"{_extent(shape)} as its image",
            "submit it on the image's own voxels",
        )  # fmt: skip


def _check_explained(
    path: Path, counts: Sequence[NDArray[Any]], segments: Sequence[Segment]
) -> None:
    for layer, values in enumerate(counts):
        known = {s.value for s in segments if s.layer == layer}
        if stray := [int(v) for v in values if v != 0 and int(v) not in known]:
            raise VolumeError(
                path, f"value {stray[0]} in layer {layer}", "a value of one of its segments"
            )


def _extent(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
