"""Voxel sizes and section counts from the metadata of TIFF files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

from lib.volumes.lengths import StatedSize, stated_size

LARGEST_PRINTED_NM = 2000.0
"""Resolutions in inches or centimetres say how a page is printed, unless pixels are this fine."""
_PRINT_UNITS = ("inch", "inches", "in")


def voxel_size(file: Any, depth: int) -> StatedSize:
    """The voxel size of a stack; that of a plane where a single section has no depth.

    OME metadata, ImageJ's, those of FEI and Zeiss microscopes, and plain resolution tags.
    """
    if file.is_ome:
        lengths, units = _ome_size(file)
    elif file.is_imagej:
        lengths, units = _imagej_size(file)
    elif file.is_fei or file.is_sem:
        lengths, units = _microscope_size(file)
    else:
        lengths, units = _printed_size(file)
    if lengths[2] is None and depth == 1:
        lengths[2], units[2] = lengths[0], units[0]
    return stated_size(lengths, units)


def stated_sections(file: Any) -> int | None:
    """How many sections the metadata promises; None where it says nothing."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1))
    pixels = _ome_pixels(file)
    if pixels is None:
        return None
    return int(pixels.get("SizeZ", 1)) * int(pixels.get("SizeT", 1))


def own_attributes(file: Any) -> dict[str, Any]:
    """What our own export wrote into the description."""
    if not file.is_ome:
        return {}
    for element in ElementTree.fromstring(file.ome_metadata).iter():
        if (element.text or "").startswith('{"neuropil"'):
            return dict(json.loads(element.text or "")["neuropil"])
    return {}


Lengths = tuple[list[float | None], list[Any]]


def _ome_pixels(file: Any) -> Any:
    """The first Pixels element of OME-XML."""
    if not file.is_ome:
        return None
    for element in ElementTree.fromstring(file.ome_metadata).iter():
        if element.tag.rpartition("}")[2] == "Pixels":
            return element
    return None


def _ome_size(file: Any) -> Lengths:
    pixels = _ome_pixels(file)
    if pixels is None:
        return [None] * 3, [None] * 3
    stated = [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
    lengths = [None if v is None else float(v) for v in stated]
    return lengths, [pixels.get(f"PhysicalSize{axis}Unit", "um") for axis in "XYZ"]


def _imagej_size(file: Any) -> Lengths:
    """ImageJ keeps pixels for each unit in the resolution tags and z in its own metadata."""
    metadata = file.imagej_metadata or {}
    unit = metadata.get("unit")
    units = [unit, metadata.get("yunit", unit), metadata.get("zunit", unit)]
    plane = _per_pixel(file)
    if plane is None:
        return [None] * 3, units
    if str(unit).strip().lower() in _PRINT_UNITS and plane[0] * 2.54e7 > LARGEST_PRINTED_NM:
        return [None] * 3, units
    spacing = metadata.get("spacing")
    return [*plane, float(spacing) if spacing else None], units


def _printed_size(file: Any) -> Lengths:
    """Resolution tags in pixels for each inch or centimetre."""
    plane = _per_pixel(file)
    tags = file.pages[0].tags
    unit = {2: "inch", 3: "cm"}.get(int(tags["ResolutionUnit"].value if
                                        "ResolutionUnit" in tags else 1))  # fmt: skip
    factor = {"inch": 2.54e7, "cm": 1e7}.get(unit or "", 0.0)
    if plane is None or not 0 < plane[0] * factor <= LARGEST_PRINTED_NM:
        return [None] * 3, [None] * 3
    return [*plane, None], [unit] * 3


def _microscope_size(file: Any) -> Lengths:
    if file.is_fei:
        scan = (file.fei_metadata or {}).get("Scan", {})
        x, y = scan.get("PixelWidth"), scan.get("PixelHeight")
        if isinstance(x, float | int) and isinstance(y, float | int) and x > 0 and y > 0:
            return [float(x), float(y), None], ["m"] * 3
    metadata: Mapping[str, Any] = (file.sem_metadata or {}) if file.is_sem else {}
    for key in ("ap_image_pixel_size", "ap_pixel_size"):
        value = metadata.get(key)
        if isinstance(value, tuple) and len(value) == 3:
            return [float(value[1]), float(value[1]), None], [value[2]] * 3
    return [None] * 3, [None] * 3


def _per_pixel(file: Any) -> tuple[float, float] | None:
    """Units for each pixel in x and y, by the resolution tags."""
    tags = file.pages[0].tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    (x_count, x_units), (y_count, y_units) = tags["XResolution"].value, tags["YResolution"].value
    if not x_count or not y_count:
        return None
    return x_units / x_count, y_units / y_count
