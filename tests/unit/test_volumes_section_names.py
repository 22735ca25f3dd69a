"""The order of section files by their names, over any numbers, and what messages say of gaps."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.volumes.errors import VolumeError
from lib.volumes.readers.section_names import MOST_MISSING, MOST_NAMED, Sections, order_sections

SUFFIXES = (".png", ".tif")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of a test make folders of their own."""
    return tmp_path_factory.mktemp("sections")


def made(root: Path, names: list[str]) -> Path:
    """A new folder of empty files."""
    folder = root / f"f{len(list(root.iterdir()))}"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def order(folder: Path, *more: str, **options) -> list[str | None]:
    """Names in their order."""
    found = order_sections(folder, SUFFIXES, *more, **options)
    return [None if p is None else p.name for p in found.files]


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(0, 50),
    step=st.integers(1, 12),
    count=st.integers(1, 12),
    digits=st.sampled_from([1, 4]),
    prefix=st.sampled_from(["", "z", "Stack7_", "2020-11-25_s"]),
)
def test_any_regular_numbers_are_an_order(folders, first, step, count, digits, prefix) -> None:
    names = [f"{prefix}{first + step * n:0{digits}d}.png" for n in range(count)]
    folder = made(folders, names[::-1])
    if count == 2 and step > 1:  # two numbers do not tell a step from a gap
        with pytest.raises(VolumeError, match="every number once"):
            order(folder)
        assert order(folder, gaps="ignore") == names
        return
    assert order(folder) == names
    told = order_sections(folder, SUFFIXES).warnings
    assert bool(told) == (step > 1 and count > 2)
    assert all(f"rise by {step}" in text for text in told)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 30), min_size=3))
def test_missing_numbers_are_refused_held_open_or_closed(folders, numbers) -> None:
    present = sorted(numbers)
    folder = made(folders, [f"z{n}.tif" for n in present])
    assert order(folder, gaps="ignore") == [f"z{n}.tif" for n in present]
    found = order_sections(folder, SUFFIXES, gaps="unknown")
    held = [p for p in found.files if p is not None]
    assert [p.name for p in held] == [f"z{n}.tif" for n in present]
    step = (present[-1] - present[0]) // (len(found.files) - 1)
    for place, path in enumerate(found.files):
        assert (path is None) == (present[0] + place * step not in numbers)
    assert found.missing == [z for z, p in enumerate(found.files) if p is None]
    if found.missing:
        with pytest.raises(VolumeError, match=f"z?numbers {present[0]} to {present[-1]} without"):
            order(folder)
    else:
        assert len(order(folder)) == len(present)


def test_many_missing_numbers_are_counted_and_not_listed(folders: Path) -> None:
    folder = made(folders, [f"z{n}.png" for n in (0, 1, 2, 30)])
    with pytest.raises(VolumeError) as caught:
        order(folder)
    first = ", ".join(str(n) for n in range(3, 3 + MOST_NAMED))
    assert f"without {first} and {27 - MOST_NAMED} more" in str(caught.value)
    assert "--missing-sections unknown (or ignore)" in str(caught.value)
    exactly = made(folders, [f"z{n}.png" for n in (0, 1, 2 + MOST_NAMED)])
    with pytest.raises(VolumeError) as caught:
        order(exactly)
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    ("last", "fits"), [(3 * MOST_MISSING + 2, True), (3 * MOST_MISSING + 3, False)]
)
def test_numbers_that_count_something_else_hold_no_sections_open(folders, last, fits) -> None:
    folder = made(folders, ["z0.png", "z1.png", f"z{last}.png"])
    if fits:
        assert len(order(folder, gaps="unknown")) == last + 1
    else:
        with pytest.raises(VolumeError, match="use --missing-sections ignore"):
            order(folder, gaps="unknown")
    assert len(order(folder, gaps="ignore")) == 3


def test_what_is_no_section_does_not_count(folders: Path) -> None:
    folder = made(folders, ["z1.png", "z2.png", ".z3.png", "notes.txt", "z4.png.part"])
    (folder / "z9.png").mkdir()
    assert order(folder) == ["z1.png", "z2.png"]
    assert order(made(folders, ["notes.txt"])) == [] == order(made(folders, []))
    assert Sections(()).missing == []


def test_one_file_needs_no_number(folders: Path) -> None:
    assert order(made(folders, ["section.png"])) == ["section.png"]
    found = order_sections(made(folders, ["b.png", "a.png"]), SUFFIXES)
    assert [p.name for p in found.files if p] == ["a.png", "b.png"]
    assert "their order is that of the alphabet" in found.warnings[0]


def test_a_pattern_takes_a_part(folders: Path) -> None:
    folder = made(folders, [f"{s}_{n}.png" for s in ("raw", "mask") for n in range(3)])
    assert order(folder, "raw_*") == ["raw_0.png", "raw_1.png", "raw_2.png"]
    assert order(folder, "RAW_*") == [], "names are taken as they are written"
    with pytest.raises(VolumeError, match=r"2 stacks: 3 like mask_0\.png; 3 like raw_0\.png"):
        order(folder)


def test_the_number_that_differs_everywhere_counts(folders: Path) -> None:
    """Of several such numbers the one without gaps: a clock runs on beside a count."""
    names = [f"s{n}_t{n * n + 5}_of5.png" for n in range(5)]
    assert order(made(folders, names[::-1])) == names
    both = [f"a{n}_b{9 - n}.png" for n in range(4)]
    assert order(made(folders, both[::-1])) == both, "the first of two that count alike"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["z1.png", "z01.png"], "z01.png and z1.png, which are the same number"),
        (["a1_1.png", "a1_2.png", "a2_1.png", "a2_2.png"],
         "2 stacks, beginning with a1_1.png, a2_1.png"),
        (["z1.png", "z2.png", "z3.jpg", "z4.jpeg"], "2 pictures of a kind that is not read"),
    ],
)  # fmt: skip
def test_files_that_are_no_one_stack_are_named_with_a_way_out(folders, names, told) -> None:
    folder = made(folders, names)
    with pytest.raises(VolumeError) as caught:
        order(folder)
    assert told in str(caught.value) and "take a part by its name, as in" in str(caught.value)
    assert f"'{folder.name}:" in str(caught.value)
