"""The order of section files by the numbers in their names, and what is missing between them."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

from lib.volumes.errors import VolumeError

OTHER_PICTURES = (".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp", ".dm3", ".dm4", ".mrc")
"""Kinds of files that are sections to other programs and are not read from a folder."""
MOST_NAMED = 8
MOST_MISSING = 20
"""More missing sections for each that is there are no gaps: the numbers count something else."""

Gaps = Literal["refuse", "unknown", "ignore"]
"""What becomes of sections whose number is missing."""


@dataclass(frozen=True)
class Sections:
    """Section files in order.

    Args:
        files: one for each section; None for one that is missing.
        warnings: what a user should know of their order.
    """

    files: tuple[Path | None, ...]
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> list[int]:
        """Positions without a file."""
        return [z for z, path in enumerate(self.files) if path is None]


def order_sections(
    folder: Path, suffixes: tuple[str, ...], pattern: str = "", gaps: Gaps = "refuse"
) -> Sections:
    """The section files of a folder, in the order of their numbers.

    Numbers are compared as numbers ("z9" before "z10"). Where names hold several, the one that
    is different in every file counts, and among such the one without gaps.

    Args:
        suffixes: of files that are read, lower case.
        pattern: names to take, such as "raw_*.png"; "" for all.
        gaps: missing numbers are refused, become sections of None, or are ignored.

    Raises:
        VolumeError: several stacks, numbers that are missing or stand twice, or pictures of
            kinds that are not read; the files are named.
    """
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    if pattern:
        names = [n for n in names if fnmatchcase(n, pattern)]
    files = [n for n in names if n.lower().endswith(suffixes)]
    if not files:
        return Sections(())
    others = [n for n in names if n.lower().endswith(OTHER_PICTURES)]
    if others:
        raise VolumeError(
            folder, f"{len(files)} sections ({files[0]}, ...) and {len(others)} pictures of a "
            f"kind that is not read ({others[0]}, ...)", "sections of one kind",
            _remedy(folder, files[0]),
        )  # fmt: skip
    stems = defaultdict(list)
    for name in files:
        stems[_template(name)].append(name)
    if len(files) == 1:
        return Sections((folder / files[0],))
    if not any(_numbers(n) for n in files):
        return Sections(
            tuple(folder / n for n in files),
            (f"{folder}: file names without numbers; their order is that of the alphabet",),
        )
    if len(stems) > 1:
        raise VolumeError(
            folder, f"{len(stems)} stacks: {_stacks(list(stems.values()))}", "sections of one name "
            "but for their number", _remedy(folder, files[0]),
        )  # fmt: skip
    return _by_number(folder, files, gaps)


def _by_number(folder: Path, files: Sequence[str], gaps: Gaps) -> Sections:
    rows = [_numbers(n) for n in files]
    unique = [i for i in range(len(rows[0])) if len({r[i] for r in rows}) == len(files)]
    if not unique:
        _refuse_repeats(folder, files, rows)
    field = min(unique, key=lambda i: (_count(r[i] for r in rows).lacking, i))
    numbered = {r[field]: folder / n for r, n in zip(rows, files, strict=True)}
    count = _count(numbered)
    absent = (n for n in range(count.first, count.last, count.step) if n not in numbered)
    if count.lacking and gaps == "refuse":
        shown = ", ".join(str(n) for n in islice(absent, MOST_NAMED))
        more = f" and {count.lacking - MOST_NAMED} more" if count.lacking > MOST_NAMED else ""
        raise VolumeError(
            folder, f"{len(files)} sections, numbers {count.first} to {count.last} without "
            f"{shown}{more}", "every number once",
            "add the sections, or say --missing-sections unknown (or ignore)",
        )  # fmt: skip
    if count.lacking > MOST_MISSING * len(files) and gaps == "unknown":
        raise VolumeError(
            folder, f"{count.lacking} missing numbers between {len(files)} sections",
            "numbers that count sections", "use --missing-sections ignore",
        )  # fmt: skip
    places = sorted([*numbered, *(absent if gaps == "unknown" else ())])
    told = (f"{folder}: section numbers rise by {count.step}",) if count.step > 1 else ()
    return Sections(tuple(numbered.get(n) for n in places), told)


@dataclass(frozen=True)
class _Count:
    """A regular count from first to last, and how many of its numbers are lacking."""

    first: int
    last: int
    step: int
    lacking: int


def _count(numbers: Iterable[int]) -> _Count:
    """The count that numbers belong to; with three and more it may have steps over 1."""
    present = sorted(numbers)
    steps = [b - a for a, b in pairwise(present)]
    step = math.gcd(*steps) if len(steps) > 1 else 1
    lacking = (present[-1] - present[0]) // max(1, step) + 1 - len(present)
    return _Count(present[0], present[-1], max(1, step), lacking)


def _refuse_repeats(folder: Path, files: Sequence[str], rows: Sequence[tuple[int, ...]]) -> None:
    """No number is different in every file: several stacks, or one section twice."""
    first: dict[tuple[int, ...], str] = {}
    for name, row in zip(files, rows, strict=True):
        if row in first:
            found = f"{first[row]} and {name}, which are the same number"
            break
        first[row] = name
    else:
        varying = [i for i in range(len(rows[0])) if len({r[i] for r in rows}) > 1]
        field = min(varying, key=lambda i: len({r[i] for r in rows}))
        begins = {r[field]: n for n, r in zip(reversed(files), reversed(rows), strict=True)}
        found = f"{len(begins)} stacks, beginning with "
        found += ", ".join(begins[k] for k in sorted(begins)[:MOST_NAMED])
    raise VolumeError(folder, found, "one file for each section", _remedy(folder, files[0]))


def _remedy(folder: Path, name: str) -> str:
    shown = re.sub(r"\d+", "*", name)
    return f"take a part by its name, as in '{folder.name}:{shown}', or use a folder for each"


def _stacks(stems: Sequence[Sequence[str]]) -> str:
    return "; ".join(f"{len(names)} like {names[0]}" for names in stems[:MOST_NAMED])


def _template(name: str) -> str:
    return re.sub(r"\d+", "#", name.lower())


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", name.rpartition(".")[0] or name))
