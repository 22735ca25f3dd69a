"""Open the labels of an import and place them on the image's grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.value_maps import EncodingName, ValueMap, encoding, load_value_map
from lib.volumes.boxes import Box, Triple, slabs
from lib.volumes.errors import VolumeError
from lib.volumes.label_views import PlacedLabel
from lib.volumes.readers.opening import open_source, split_dataset
from lib.volumes.readers.roles import Role
from lib.volumes.readers.section_names import Gaps
from lib.volumes.source import Source
from lib.volumes.writing import SLAB_BYTES

SIZE_TOLERANCE = 0.01
"""Voxel sizes of image and label that differ by more than this part are a mistake."""


@dataclass(frozen=True)
class LabelOptions:
    """How labels are opened.

    Args:
        size_stated: the user gave the voxel size, so what files say does not count.
        spacing_unit: of NIfTI and NRRD files.
        gaps: what becomes of missing numbers in a folder of sections.
    """

    size_stated: bool = False
    spacing_unit: str = "nm"
    gaps: Gaps = "refuse"


def open_label(text: str, role: Role, image: Source, options: LabelOptions) -> PlacedLabel | None:
    """Open a label and find its place in the image.

    Args:
        text: PATH or PATH:DATASET; "" for none.

    Raises:
        VolumeError: another shape or voxel size than the image, and no offset explains it.
    """
    if not text:
        return None
    label = open_source(text, role, options.spacing_unit, options.gaps)
    here, there = image.info, label.info
    if not options.size_stated and here.voxel_size_nm and there.voxel_size_nm:
        ratio = np.divide(there.voxel_size_nm, here.voxel_size_nm)
        if (abs(ratio - 1) > SIZE_TOLERANCE).any():
            raise VolumeError(
                there.where, f"voxels of {there.voxel_size_nm} nm",
                f"{here.voxel_size_nm} nm as the image {here.where}",
                "resample the label, or state the size with --voxel-size-nm",
            )  # fmt: skip
    if here.placed and there.placed:
        x, y, z = (h - t for h, t in zip(here.origin, there.origin, strict=True))
        return PlacedLabel(label, (x, y, z))
    if there.offset_nm and here.offset_nm and there.offset_nm != here.offset_nm:
        return PlacedLabel(label, _offset_voxels(image, label))
    if there.shape != here.shape:
        raise VolumeError(
            there.where, f"a {role} label of {_extent(there.shape)} voxels (x, y, z)",
            f"{_extent(here.shape)} as the image {here.where}",
            "image and label must lie on the same grid",
        )  # fmt: skip
    return PlacedLabel(label)


def open_instance(
    text: str, image_text: str, image: Source, options: LabelOptions
) -> PlacedLabel | None:
    """The named ids, or those that a CREMI file holds beside its raw data.

    Args:
        text: PATH or PATH:DATASET; "none" for none, "" for those beside the raw data.
        image_text: what the user named as the image.
    """
    if text:
        named = "" if text == "none" else text
        return open_label(named, "instance", image, options)
    path, _ = split_dataset(image_text)
    if image.info.dataset != "volumes/raw":
        return None
    beside = f"{path}:volumes/labels/neuron_ids"
    try:
        open_source(beside, "instance").close()
    except VolumeError:
        return None  # raw data without labels
    return open_label(beside, "instance", image, options)


def value_map(
    label: PlacedLabel, name: EncodingName, mapping: str, hierarchy: LabelHierarchy
) -> ValueMap:
    """What a class label's values mean: a mapping file's word, else an encoding's.

    Raises:
        ValueError: the mapping file cannot be used.
    """
    if mapping:
        return load_value_map(mapping, hierarchy)
    sets = label.source.info.attributes.get("class_sets", {})
    extra = {int(code): list(names) for code, names in sets.items()}
    return encoding(name, hierarchy, extra)


def without_unlabelled(
    values: ValueMap, label: PlacedLabel, box: Box, hierarchy: LabelHierarchy
) -> ValueMap:
    """What a voxel without a label can be in an item that is fully annotated.

    Value 0 of the canonical encoding then is every class but those that are painted.
    """
    if values.table.get(0) != hierarchy.unknown:
        return values
    painted = 0
    for slab in slabs(box, label.source.dtype.itemsize * 4, SLAB_BYTES):
        for value in np.unique(label.read(slab)[0]):
            class_set = values.table.get(int(value), hierarchy.unknown)
            painted |= class_set if class_set != hierarchy.unknown else 0
    left = hierarchy.unknown & ~painted
    return replace(values, table={**values.table, 0: left}) if left else values


def _offset_voxels(image: Source, label: Source) -> Triple:
    """The image's first voxel in the label's voxels, by the offsets of both (CREMI)."""
    size = image.info.voxel_size_nm
    assert image.info.offset_nm and label.info.offset_nm
    if size is None:
        raise VolumeError(
            image.info.where, "offsets of image and label differ, and no voxel size",
            "a `resolution` attribute, which turns offsets into voxels",
        )  # fmt: skip
    exact = np.subtract(image.info.offset_nm, label.info.offset_nm) / np.array(size)
    x, y, z = (round(v) for v in exact)
    if (abs(exact - (x, y, z)) > SIZE_TOLERANCE).any():
        raise VolumeError(
            label.info.where, f"offset {label.info.offset_nm} nm",
            f"whole voxels of {size} nm from the image's {image.info.offset_nm}",
        )  # fmt: skip
    return x, y, z


def _extent(shape: Iterable[int]) -> str:
    return " x ".join(str(n) for n in shape)
