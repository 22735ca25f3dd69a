"""The join of all blocks: the same wherever its numbers lie, and it holds a block at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_cases import case, command
from engine_cases import HIERARCHY
from numpy.typing import NDArray

from lib.blocks import objects
from lib.blocks.engine import OneProcess, Work
from lib.blocks.ledger import Entry
from lib.blocks.objects import join_fragments
from lib.blocks.parts import PartContacts
from lib.blocks.plan import FOLDER
from lib.blocks.run import drive
from lib.commands import main
from lib.configs.settings import InferenceSettings
from lib.prediction import graph as graphs
from lib.prediction.graph import COUNT, LEAST, MEAN, MOST, REACHES, merge_contacts
from lib.prediction.joining import FEATURES, JoinModel, Perceptron, join_features
from lib.prediction.predictor import Predictor
from lib.prediction.scratch import Scratch
from lib.volumes.boxes import Triple

VALUES = HIERARCHY.num_classes + 1


def random_layer(rng: np.random.Generator, width: int) -> Perceptron:
    return Perceptron(
        ((rng.normal(size=(1, width)).astype(np.float32), np.zeros(1, np.float32)),),
        np.zeros(width, np.float32), np.ones(width, np.float32),
    )  # fmt: skip


@pytest.fixture
def predictor() -> Predictor:
    rng = np.random.default_rng(0)
    joining = JoinModel(random_layer(rng, FEATURES), random_layer(rng, FEATURES))
    net: Any = None
    return Predictor(net, HIERARCHY, InferenceSettings(min_object_voxels=3), joining=joining)


def write_parts(out: Path, blocks: int, fragments: int, contacts: int) -> None:
    """What blocks in a row say, at random; each also of a fragment that nobody counted."""
    folder = out / FOLDER / "parts"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for block in range(blocks):
        own = 10 * (1 + np.arange(block * fragments, (block + 1) * fragments, dtype=np.uint64))
        some = np.concatenate([own, [np.uint64(7)]])
        pairs = np.sort(some[rng.integers(0, len(some), (contacts, 2))], 1)
        pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
        said: dict[str, NDArray[Any]] = {"edges": pairs}
        for reach in range(len(REACHES)):
            stats = rng.random((len(pairs), 5))
            stats[:, COUNT] = rng.integers(1, 20, len(pairs))
            stats[:, LEAST], stats[:, MOST] = stats[:, MEAN] / 2, stats[:, MEAN] * 1.5
            said |= {f"pairs{reach}": pairs, f"stats{reach}": stats}
        votes = rng.integers(0, 9, (fragments, VALUES))
        np.savez(
            folder / f"{block}-0-0.part.npz", voted=own, votes=votes, background=votes[0], **said
        )
        # two blocks say the same pairs again: what they say is pooled
        np.savez(folder / f"{block}-0-0.between.npz", **said)


def kept(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (out / FOLDER).glob("*.np[yz]")}


def test_the_result_is_the_same_wherever_the_statistics_lie(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(tmp_path, 3, 40, 150)
    told, expected = join_fragments(tmp_path, predictor), kept(tmp_path)
    assert 1 < told["objects"] < 120
    monkeypatch.setattr(objects, "IN_MEMORY", 0)
    monkeypatch.setattr(graphs, "ROWS", 7)
    assert join_fragments(tmp_path, predictor) == told
    assert kept(tmp_path) == expected
    assert not list((tmp_path / FOLDER).glob("neuropil-*"))


def test_the_graph_on_the_disk_is_that_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parts(tmp_path, 3, 40, 150)
    names = 10 * np.arange(1, 121, dtype=np.uint64)
    contacts, votes = PartContacts(tmp_path, names), np.ones((121, VALUES), np.int64)
    cells = np.append(0, 1 + np.arange(120) // 4)
    one = merge_contacts(list(contacts), votes)
    two = merge_contacts(contacts, votes)
    monkeypatch.setattr(graphs, "ROWS", 11)
    with Scratch(0, tmp_path) as scratch:
        there = merge_contacts(contacts, votes, scratch)
        assert isinstance(there.stats.base, np.memmap)
        for other in (two, there):
            np.testing.assert_array_equal(one.edges, other.edges)
            np.testing.assert_array_equal(one.stats, other.stats)
            np.testing.assert_array_equal(join_features(one), join_features(other))
        np.testing.assert_array_equal(
            join_features(one)[20:31], join_features(there, slice(20, 31))
        )
        ours, theirs = one.contracted(cells), there.contracted(cells)
        np.testing.assert_allclose(ours[0].stats, theirs[0].stats, rtol=1e-12)
        np.testing.assert_array_equal(ours[2], theirs[2])
    assert (one.stats[:, 0, COUNT] % 2 == 0).all(), "each pair was said twice"
    assert one.edges.min() == 1 and one.edges.max() <= 120


def test_the_join_holds_the_contacts_of_one_block(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of a contact takes 160 bytes; of all together it is never in memory."""
    write_parts(tmp_path, 24, 200, 1500)
    monkeypatch.setattr(objects, "IN_MEMORY", 0)
    monkeypatch.setattr(graphs, "ROWS", 500)
    names = 10 * np.arange(1, 24 * 200 + 1, dtype=np.uint64)
    contacts = sum(len(block.edges) for block in PartContacts(tmp_path, names)) // 2
    tracemalloc.start()
    join_fragments(tmp_path, predictor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 * contacts


class Told(OneProcess):
    """Notes the stages that it is asked for."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def run(self, work: Work, out: Path, stage: str, todo: Iterable[Triple]) -> Iterator[Entry]:
        """Here as well."""
        self.stages.append(stage)
        return super().run(work, out, stage, todo)


def test_what_is_done_at_once_is_done_by_the_driver(tmp_path: Path) -> None:
    """A worker has the memory of a block, and is killed above it."""
    folder = case(tmp_path, (17, 16, 9))
    options = ["inference.object_threshold=0.0", "inference.instance_block=[24,24,12]"]
    engine = Told()
    words = command(folder, "--level", "object", task="both")
    assert main([*words, *options]) == 0
    ledger = folder / "seg.zarr" / FOLDER / "ledger.jsonl"
    ledger.unlink()
    outcome = drive(folder / "seg.zarr", engine)
    assert outcome.made and not outcome.failed
    assert "predict" in engine.stages and "votes" in engine.stages
    assert not {"join", "name"} & set(engine.stages)
