"""Who may import what: never up, never in a circle, and MONAI Label in the adapters alone.

The floors are those of docs/architecture.md. A room that is planned but not built is allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("labels", "configs", "metrics"),
    ("synthetic", "prompts", "targets", "volumes"),
    ("dicom", "annotation", "data", "networks"),
    ("losses", "prediction"),
    ("clicks", "proofread", "queries", "blocks", "engine"),
    ("adaptation", "evaluation", "shapes"),
    ("server", "trainers", "view", "demo"),
    ("infers", "activelearning"),
    ("commands", "main"),
)
"""From the ground up; rooms of one floor may use each other as long as nothing circles."""

ADAPTERS = {"infers", "trainers", "activelearning", "server", "main"}
"""What may import monailabel."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = [ROOT / "main.py", *sorted((ROOT / "lib").rglob("*.py"))]


def room_of(path: Path) -> str:
    """The package of `lib` that a file lies in; its own name for a file of no package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if len(parts) > 1 else parts[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return names


def imports_between(files: list[Path]) -> Iterator[tuple[str, str, str]]:
    """(room, room that it imports, "file imports module") of every import across rooms."""
    for path in files:
        here = room_of(path)
        for name in sorted(imported(path)):
            parts = name.split(".")
            if parts[0] == "lib" and len(parts) > 1 and parts[1] != here:
                yield here, parts[1], f"{path.relative_to(ROOT)} imports {name}"


def circle_in(uses: Mapping[str, set[str]]) -> list[str]:
    """The rooms of one circle, the first one again at the end; empty where there is none."""
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return [*way[way.index(room) :], room]
        if room in done:
            return []
        for other in sorted(uses.get(room, ())):
            if found := walk(other, [*way, room]):
                return found
        done.add(room)
        return []

    return next((found for room in sorted(uses) if (found := walk(room, []))), [])


def test_every_room_has_its_floor():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= set(FLOOR), "say in FLOORS and docs/architecture.md where it stands"


def test_no_import_runs_up():
    up = [text for here, there, text in imports_between(FILES) if FLOOR[there] > FLOOR[here]]
    assert not up


def test_no_rooms_import_each_other_in_a_circle():
    uses: dict[str, set[str]] = {}
    for here, there, _ in imports_between(FILES):
        uses.setdefault(here, set()).add(there)
    assert circle_in(uses) == []


def test_a_circle_is_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_adapters_import_monailabel():
    found = {p for p in FILES if "monailabel" in {n.split(".")[0] for n in imported(p)}}
    assert {room_of(path) for path in found} <= ADAPTERS


def test_every_command_is_there():
    import importlib

    from lib.commands import COMMANDS

    for name, (module, _) in COMMANDS.items():
        loaded = importlib.import_module(module)
        assert callable(getattr(loaded, f"add_{name}_parser"))
        assert callable(getattr(loaded, f"run_{name}"))
