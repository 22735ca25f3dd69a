"""Units of length as files state them, in nanometres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Size = tuple[float, float, float]

_PREFIXES_NM = {
    "f": ("femto", 1e-6), "p": ("pico", 1e-3), "n": ("nano", 1.0), "u": ("micro", 1e3),
    "m": ("milli", 1e6), "c": ("centi", 1e7), "d": ("deci", 1e8), "": ("", 1e9),
    "k": ("kilo", 1e12),
}  # fmt: skip
_MICRO = ("µ", "μ", "\\u00b5", "\\u03bc", "&#181;", "&micro;")
"""The two letters for micro, and as ImageJ, Java and XML programs escape them."""

_FURTHER = {
    "micron": 1e3, "microns": 1e3, "mu": 1e3, "mum": 1e3, "å": 0.1, "a": 0.1, "ang": 0.1,
    "angstrom": 0.1, "angstroms": 0.1, "angström": 0.1, "ångström": 0.1, "ångstrom": 0.1,
    "in": 2.54e7, "inch": 2.54e7, "inches": 2.54e7,
}  # fmt: skip
NOT_STATED = frozenset(
    {"", "none", "null", "unknown", "unit", "units", "pixel", "pixels", "px", "voxel", "voxels",
     "arbitrary", "dimensionless", "reference frame", "1"}
)  # fmt: skip
"""Words by which programs say that they know no unit."""


def _table() -> dict[str, float]:
    table = dict(_FURTHER)
    for symbol, (prefix, nm) in _PREFIXES_NM.items():
        table[f"{symbol}m"] = nm
        for stem in ("meter", "metre"):
            table[prefix + stem] = table[prefix + stem + "s"] = nm
    return table


_NM = _table()


def unit_nm(unit: Any) -> float | None:
    """What one unit of length is in nanometres.

    Args:
        unit: as stated: a symbol or a word in English, singular or plural, any case.

    Returns:
        None where the file says that it knows no unit ("pixel", nothing at all).

    Raises:
        ValueError: a word that is no unit of length.
    """
    text = "" if unit is None else str(unit).strip().strip("\"'").strip("\0 ").lower()
    for micro in _MICRO:
        text = text.replace(micro, "u")
    text = text.removeprefix("[").removesuffix("]").removesuffix(".")
    if text in NOT_STATED:
        return None
    if text in _NM:
        return _NM[text]
    raise ValueError(f"lengths in {unit!r}, which is no unit of length that is known")


@dataclass(frozen=True)
class StatedSize:
    """The voxel size that a file states.

    Args:
        nm: (x, y, z); None where it is not stated or cannot be used.
        fault: why it cannot be used; "" where it is not stated at all.
    """

    nm: Size | None = None
    fault: str = ""


UNSTATED = StatedSize()


def stated_size(
    lengths: Sequence[float | None], units: Sequence[Any] | Any = "nm", default_nm: float = 0.0
) -> StatedSize:
    """Turn stated lengths into nanometres.

    Args:
        lengths: x, y, z; None for one that is not stated.
        units: a unit for each axis, or one for all.
        default_nm: what a unit is that is not stated; 0: the size then is not stated.

    Returns:
        A size of three usable lengths, else none and the reason.
    """
    if any(length is None for length in lengths):
        return StatedSize()
    words = list(units) if isinstance(units, list | tuple) else [units] * 3
    sizes = []
    for length, word in zip(lengths, words, strict=True):
        try:
            factor = unit_nm(word) or default_nm
        except ValueError as error:
            return StatedSize(fault=str(error))
        if not factor:
            return StatedSize()
        sizes.append(round(abs(float(length or 0.0)) * factor, 6))
    if not any(sizes):  # what writers leave in a field that they do not fill
        return StatedSize()
    if not all(math.isfinite(s) and s > 0 for s in sizes):
        return StatedSize(fault=f"a voxel size of {' x '.join(f'{s:g}' for s in sizes)} nm")
    x, y, z = sizes
    return StatedSize((x, y, z))
