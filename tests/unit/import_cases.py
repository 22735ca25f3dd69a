"""The `import` and `export` commands on small volumes, and imports that must be refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from volume_files import volume

from lib.commands import main
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study, StudyItem

H = load_hierarchy()
SHAPE = (13, 17, 9)
STACK = volume(SHAPE)
PAGES = [STACK[:, :, z].T.copy() for z in range(SHAPE[2])]
"""The sections of the stack as programs write them: rows first."""
SIZE = ("--voxel-size-nm", 4, 5, 40)
AXON, MITO = H.set_named("axon"), H.set_named("mitochondria")


def run(*words: Any) -> int:
    """The command line."""
    return main([str(w) for w in words])


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
