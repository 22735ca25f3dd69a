"""Who may import what: the core knows nothing of MONAI Label, nor of the adapters to it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTERS = {"infers", "trainers", "activelearning", "server"}
CORE = sorted(
    p for p in (ROOT / "lib").rglob("*.py") if p.relative_to(ROOT).parts[1] not in ADAPTERS
)


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
            names |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_no_monailabel_and_no_adapter(path: Path):
    banned = ("monailabel", *(f"lib.{name}" for name in sorted(ADAPTERS)))
    found = {n for n in imported(path) if n.split(".")[0] == "monailabel" or n.startswith(banned)}
    assert not found


def test_the_command_line_needs_no_monailabel():
    names = imported(ROOT / "lib" / "commands.py")
    assert not any(n.startswith("monailabel") for n in names)


def test_every_command_is_there():
    import importlib

    from lib.commands import COMMANDS

    for name, (module, _) in COMMANDS.items():
        loaded = importlib.import_module(module)
        assert callable(getattr(loaded, f"add_{name}_parser"))
        assert callable(getattr(loaded, f"run_{name}"))
