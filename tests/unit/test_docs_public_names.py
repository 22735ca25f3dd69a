"""Public names say what they are: the share of those with a docstring, and who has none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAST = 0.95

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_names(path: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether it has a docstring) of a module, its classes, functions and methods.

    Left out are names with a leading underscore and all that lies in functions, overloads,
    setters, and the bodies of protocols, whose methods the class describes.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    yield module, bool(ast.get_docstring(tree))
    yield from _names_in(tree, module)


def _names_in(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, bool]]:
    for node in parent.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
        if marks & {"overload", "setter", "override"}:
            continue
        name = f"{prefix}.{node.name}"
        yield name, bool(ast.get_docstring(node))
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            yield from _names_in(node, name)


def test_public_names_say_what_they_are():
    files = [ROOT / "main.py", *sorted((ROOT / "lib").rglob("*.py"))]
    found = [pair for path in files for pair in public_names(path)]
    bare = [name for name, told in found if not told]
    share = 1 - len(bare) / len(found)
    assert share >= LEAST, f"{share:.1%} of {len(found)}; without a docstring: {', '.join(bare)}"
