"""Files of arrays that were cut short or changed: none of them brings anything down.

What can be computed again counts as missing, or is refused with a sentence, whatever is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from queries_cases import add_item, make_scores, store_in

from lib.adaptation.rehearsal import Reservoir
from lib.annotation.clicked import Clicked
from lib.prediction.fragment_store import load_fragments, save_fragments
from lib.prediction.graph import REACHES, FragmentGraph
from lib.prediction.objects import Fragments
from lib.proofread.joins import joins_of_map, load_joins
from lib.queries.scores import load_scores, save_scores

IDS = np.arange(8, dtype=np.uint32).reshape(2, 2, 2)


def write_fragments(path: Path) -> None:
    graph = FragmentGraph(
        np.array([[1, 2]]), np.zeros((1, len(REACHES), 5)), np.zeros((8, 13), np.int64)
    )
    save_fragments(path, Fragments(IDS, graph), "weights")


def write_scores(path: Path) -> None:
    item = add_item(store_in(path.parent / "study").study, "one")
    save_scores(path, make_scores(item, np.full(8, 0.5, np.float32)))


def write_rows(path: Path) -> None:
    Reservoir(torch.ones((3, 4)), torch.ones(3, dtype=torch.int32), "digest").save(path)


def write_joins(path: Path) -> None:
    joins_of_map(IDS).save(path)


def write_clicked(path: Path) -> None:
    path.write_bytes(Clicked(IDS % 2 == 1, ((0, 2), (3, 5), (0, 2))).to_bytes())


Write = Callable[[Path], None]
Load = Callable[[Path], Any]
KINDS: dict[str, tuple[Write, Load]] = {
    "fragments": (write_fragments, load_fragments),
    "scores": (write_scores, load_scores),
    "rehearsal rows": (write_rows, Reservoir.load),
    "joins": (write_joins, load_joins),
    "clicked": (write_clicked, Clicked.read),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytes, Load]:
    """A whole file, its content, and what reads it."""
    write, load = KINDS[request.param]
    path = tmp_path / "file.npz"
    write(path)
    assert load(path) is not None
    return path, path.read_bytes(), cast(Load, load)


def missing_or_told(load: Load, path: Path) -> bool:
    """Whether a file counts as missing, or is refused by its name."""
    try:
        return load(path) is None
    except ValueError as error:
        assert path.name in str(error) and "cannot be read" in str(error)
        return True


def test_a_file_cut_short_anywhere_is_missing_or_told(kind: tuple[Path, bytes, Load]) -> None:
    path, content, load = kind
    for length in [*range(0, len(content), max(1, len(content) // 40)), len(content) - 1]:
        path.write_bytes(content[:length])
        assert missing_or_told(load, path), length


def test_changed_bytes_bring_nothing_down(kind: tuple[Path, bytes, Load]) -> None:
    """A changed byte is found by the checksums, or lies where nothing reads."""
    path, content, load = kind
    rng = np.random.default_rng(0)
    found = 0
    for at in rng.integers(0, len(content), 150):
        changed = bytearray(content)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            found += load(path) is None
        except ValueError as error:
            assert path.name in str(error)
            found += 1
    assert found > 75


def test_other_content_and_no_file_are_missing_or_told(kind: tuple[Path, bytes, Load]) -> None:
    path, _, load = kind
    for content in (b"", b"junk", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"):
        path.write_bytes(content)
        assert missing_or_told(load, path), content
    np.savez(path, other=np.zeros(3))
    assert missing_or_told(load, path), "a file of other arrays"
    path.unlink()
    assert missing_or_told(load, path)
    path.mkdir()
    assert missing_or_told(load, path), "a folder in its place"


def test_fragments_are_of_what_they_were_made_of(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    write_fragments(path)
    assert load_fragments(path, "other weights") is None
    for asked in ("weights", None):
        found = load_fragments(path, asked)
        assert found is not None and np.array_equal(found.ids, IDS)
        assert found.graph.stats.dtype == np.float64 and found.graph.edges.tolist() == [[1, 2]]
