"""docs/architecture.md is true: its floors, its files and the functions it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from test_layers import FLOORS, ROOT, room_of

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BESIDE = sorted(p for p in ROOT.glob("*.md")) + sorted((ROOT / "benchmarks").glob("*.md"))


def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and module-level names of a file."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else []
        found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


def test_the_picture_is_the_floors_that_the_layers_test_holds():
    picture = re.search(r"(?:^    .+\n)+", TEXT, re.MULTILINE)
    assert picture is not None
    floors = [set(line.strip().split(", ")) for line in picture[0].splitlines()]
    assert floors == [set(rooms) for rooms in reversed(FLOORS)]


def test_every_room_is_owned():
    rooms = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE))))
    assert rooms == {room for floor in FLOORS[:-1] for room in floor}
    there = {room_of(p) for p in (ROOT / "lib").rglob("*.py")} - {"__init__", "commands"}
    assert there <= rooms


def test_what_it_names_is_there():
    named = re.findall(r"`([\w.]+)` \(`((?:lib|tests)/[\w/.]+\.py)`\)", TEXT)
    assert len(named) > 25
    missing = [(n, file) for n, file in named if n not in names_in(ROOT / file)]
    assert not missing


def test_files_and_folders_that_pages_name_are_there():
    pages = [*BESIDE, *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:lib|tests|docs|benchmarks|requirements)/[\w/.-]+)`", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for path in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert (page.parent / path).exists(), f"{page.name}: {path}"
