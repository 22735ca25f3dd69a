"""Boxes of voxels: ((x0, x1), (y0, y1), (z0, z1)), half open, integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil

STRETCH = 8
"""Decoding chunks once is worth this many times a slab's usual memory."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Triple = tuple[int, int, int]


def whole_box(shape: Triple, origin: Triple = (0, 0, 0)) -> Box:
    """The box of a volume of `shape` whose first voxel is at `origin`."""
    (x, y, z), (a, b, c) = shape, origin
    return (a, a + x), (b, b + y), (c, c + z)


def box_shape(box: Box) -> Triple:
    """Extent in x, y, z; negative where the box is turned inside out."""
    (a, b), (c, d), (e, f) = box
    return b - a, d - c, f - e


def box_origin(box: Box) -> Triple:
    """The first voxel of a box."""
    return box[0][0], box[1][0], box[2][0]


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """A box as an index into an (X, Y, Z) array."""
    (a, b), (c, d), (e, f) = box
    return slice(a, b), slice(c, d), slice(e, f)


def shift_box(box: Box, offset: Triple) -> Box:
    """A box moved by `offset` voxels."""
    (a, b), (c, d), (e, f) = box
    x, y, z = offset
    return (a + x, b + x), (c + y, d + y), (e + z, f + z)


def minus(offset: Triple) -> Triple:
    """The way back."""
    return -offset[0], -offset[1], -offset[2]


def intersect(one: Box, other: Box) -> Box | None:
    """The voxels in both boxes; None when there are none."""
    (x, y, z) = ((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    common = (x, y, z)
    return common if min(box_shape(common)) > 0 else None


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of some boxes."""
    x, y, z = ((min(b[a][0] for b in boxes), max(b[a][1] for b in boxes)) for a in range(3))
    return x, y, z


def contains(outer: Box, inner: Box) -> bool:
    """Whether every voxel of `inner` lies in `outer`."""
    return all(a <= c and d <= b for (a, b), (c, d) in zip(outer, inner, strict=True))


def check_box(box: Box, shape: Triple) -> None:
    """Assert that a box is not empty and lies in a volume of `shape`."""
    assert contains(whole_box(shape), box) and min(box_shape(box)) > 0, (box, shape)


def slabs(box: Box, bytes_per_voxel: int, budget: int, multiple: int = 1) -> Iterator[Box]:
    """Cut a box along z into slabs of at most about `budget` bytes each.

    Args:
        multiple: slab borders fall on multiples of this z (a source's chunk depth), so that
            no chunk is decoded twice, as far as STRETCH times the budget allows.
    """
    x, y, z = box
    section = max(1, (x[1] - x[0]) * (y[1] - y[0]) * bytes_per_voxel)
    depth = max(1, budget // section)
    if depth >= multiple:
        depth -= depth % multiple
    elif section * multiple <= STRETCH * budget:
        depth = multiple
    low = z[0]
    while low < z[1]:
        high = min(z[1], low - low % depth + depth)
        yield x, y, (low, high)
        low = high


def tile_boxes(box: Box, tile: Triple) -> list[Box]:
    """Cut a box into a grid of tiles of nearly equal extent, none larger than `tile`."""
    cuts: list[list[tuple[int, int]]] = []
    for (low, high), size in zip(box, tile, strict=True):
        count = ceil((high - low) / size)
        marks = [low + round(i * (high - low) / count) for i in range(count + 1)]
        cuts.append(list(pairwise(marks)))
    return [(x, y, z) for z in cuts[2] for y in cuts[1] for x in cuts[0]]


def parse_box(text: str) -> tuple[tuple[int | None, int | None], ...]:
    """Read "X0:X1,Y0:Y1,Z0:Z1"; a missing number means "to the end".

    Raises:
        ValueError: the text has another form; the message shows the form.
    """
    parts = text.split(",")
    ranges = []
    for part in parts:
        low, colon, high = part.strip().partition(":")
        try:
            ranges.append((int(low) if low else None, int(high) if high else None))
        except ValueError:
            colon = ""
        if not colon:
            break
    else:
        if len(parts) == 3:
            return tuple(ranges)
    raise ValueError(f"box {text!r}: expected X0:X1,Y0:Y1,Z0:Z1, for example 0:512,0:512,:100")


def fill_box(ranges: tuple[tuple[int | None, int | None], ...], bounds: Box) -> Box:
    """Put the bounds where a parsed box leaves an end open; nothing is clipped."""
    x, y, z = (
        (low if a is None else a, high if b is None else b)
        for (a, b), (low, high) in zip(ranges, bounds, strict=True)
    )
    return x, y, z


def show_box(box: Box) -> str:
    """The text form that `parse_box` reads."""
    return ",".join(f"{a}:{b}" for a, b in box)


def describe_box(box: Box) -> str:
    """A box for people: the first and the last voxel along each axis, "i 0-63, j 64-127, ..."."""
    return ", ".join(
        f"{axis} {low}-{high - 1}" for axis, (low, high) in zip("ijk", box, strict=True)
    )
