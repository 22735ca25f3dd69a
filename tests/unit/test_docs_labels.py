"""docs/volumes-and-labels.md has the numbers of all classes and groups."""

from __future__ import annotations

from pathlib import Path

from lib.labels.encodings import final_codes
from lib.labels.hierarchy import load_hierarchy

PAGE = Path(__file__).parents[2] / "docs" / "volumes-and-labels.md"


def test_the_table_of_numbers_is_the_encoding() -> None:
    hierarchy = load_hierarchy()
    section = PAGE.read_text().partition("## The numbers of classes")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|") and line.strip("| ").split(" ")[0].isdecimal()
    ]
    written = {}
    for value, second, third, *rest in rows:
        names = [third] if rest else third.split(", ")
        written[int(value)] = hierarchy.set_of(names)
        if rest:
            group, thing, color = rest
            assert int(second) == int(value) - 1
            found = hierarchy.classes[int(second)]
            assert written[int(value)] & hierarchy.set_named(group)
            assert thing == ("yes" if found.object else "no")
            assert tuple(map(int, color.split(", "))) == found.color
        else:
            assert hierarchy.group_names[int(value) - 101] == second
    codes = final_codes(hierarchy, {})
    assert written == {v: s for v, s in codes.items() if v not in (0, 255)}
