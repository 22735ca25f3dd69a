"""The `import` and `export` commands on small volumes, and imports that must be refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from lib.labels.hierarchy import load_hierarchy
from lib.volumes.commands import add_export_parser, add_import_parser
from lib.volumes.study import Study, StudyItem

H = load_hierarchy()
SHAPE = (13, 17, 9)
AXON, MITO = H.set_named("axon"), H.set_named("mitochondria")


def run(*words: Any) -> int:
    """The command line's own parser and function."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    add_import_parser(commands)
    add_export_parser(commands)
    args = parser.parse_args([str(w) for w in words])
    return args.run(args)


def items(root: Path) -> list[StudyItem]:
    """The items of the study in a folder."""
    return Study(root, H).items()


def refusals(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that imports, expects a refusal, and gives its one line."""

    def refused(*words: Any, keep: Collection[str] = ()) -> str:
        capsys.readouterr()
        assert run("import", *words, "--studies", root) == 1
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and err.strip().count("\n") == 0, err
        assert out == "", out
        left = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        assert left == sorted(keep), f"no half-written item: {left}"
        return err

    return refused
