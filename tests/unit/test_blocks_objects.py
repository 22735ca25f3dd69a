"""Objects by blocks: the cut hardly shows, ids need no numbering, a killed run ends the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from block_cases import bytes_of, case, command
from engine_cases import HIERARCHY
from scipy.spatial import cKDTree

from lib.blocks import fragments
from lib.blocks.ledger import Entry, Ledger
from lib.blocks.objects import GUARD, join_fragments, objects_of
from lib.blocks.parts import contacts_between, save_part
from lib.commands import main
from lib.configs.settings import InferenceSettings
from lib.metrics.object_scores import adapted_rand_error, contingency
from lib.prediction.boundary import boundary_scale, pair_slices
from lib.prediction.evidence import Evidence
from lib.prediction.grouping import group_volume
from lib.prediction.joining import PLAIN
from lib.volumes.boxes import Box, Triple, box_slices, tile_boxes, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source

OPTIONS = ["inference.object_threshold=0.0", "inference.min_object_voxels=1",
    "inference.instance_block=[24,24,12]", "inference.instance_overlap=8",
    "inference.long_range=[2,3]", "inference.affinity_margin=0.2"]  # fmt: skip


def objects(out: Path) -> np.ndarray:
    return np.asarray(open_source(str(out / "objects")))


def run(
    folder: Path, out: str, *more: str, core: str = "[16,16,8]", task: str = "both", code: int = 0
) -> None:
    words = command(folder, *more, out=out, task=task)
    assert main([*words, *OPTIONS, f"blocks.core={core}"]) == code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = case(tmp_path_factory.mktemp("objects"))
    run(root, "seg.zarr")
    return root


def test_every_voxel_has_an_object_known_by_a_voxel(folder: Path) -> None:
    ids = objects(folder / "seg.zarr")
    assert ids.dtype == np.uint64 and (ids > 0).all()
    assert ids.max() <= ids.size, "an id is the place of a voxel, plus one"
    told = Ledger(folder / "seg.zarr").entries["join"][0, 0, 0].value
    assert told["objects"] == len(np.unique(ids))
    assert told["objects"] > 10 and ("warning" in told) == (told["largest_share"] > GUARD)


def test_the_table_knows_class_and_size_of_each(folder: Path) -> None:
    ids = objects(folder / "seg.zarr")
    with np.load(folder / "seg.zarr" / ".neuropil" / "objects.npz") as table:
        found, counts = np.unique(ids, return_counts=True)
        order = np.argsort(table["ids"])
        assert (table["ids"][order] == found).all()
        assert (table["sizes"][order] == counts).all()
        assert (table["classes"] > 0).all()


def test_classes_are_those_of_a_run_without_objects(folder: Path) -> None:
    assert main(command(folder, out="classes.zarr")) == 0
    one, other = (open_source(str(folder / n / "classes"))[:] for n in ("seg.zarr", "classes.zarr"))
    assert (one == other).all()


def test_no_classes_are_written_where_none_are_asked_for(folder: Path) -> None:
    run(folder, "one.zarr", core="[64,64,32]", task="instances")
    assert not (folder / "one.zarr" / "classes").exists()
    assert (objects(folder / "one.zarr") > 0).all()


VOXEL = (8.0, 8.0, 8.0)
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 0, 0), (0, 4, 0), (0, 0, 4))


def cells(shape: Triple, count: int, seed: int) -> np.ndarray:
    """Voronoi cells 1..count."""
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, shape, (count, 3))
    grid = np.stack(np.indices(shape), -1).reshape(-1, 3)
    _, nearest = cKDTree(seeds).query(grid)
    return (nearest.reshape(shape) + 1).astype(np.int64)


def evidence_of(truth: np.ndarray, box: Box) -> Evidence:
    """What a network that knows the truth says of a box."""
    part = truth[box_slices(box)]
    affinities = np.ones((len(OFFSETS), *part.shape), np.float16)
    for channel, offset in enumerate(OFFSETS):
        here, there = pair_slices(offset, part.shape)
        affinities[channel][here] = np.where(part[here] == part[there], 0.9, -0.9)
    classes = np.full(part.shape, 3, np.uint8)
    return Evidence(affinities, OFFSETS, classes, np.ones(part.shape, bool), 13)


@pytest.mark.parametrize("core", [(64, 64, 40), (32, 24, 20), (17, 31, 13)])
def test_objects_are_as_true_as_in_one_piece_however_the_volume_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: Triple
) -> None:
    truth = cells((64, 64, 40), 60, 0)

    def collected(*_: Any, box: Box, **__: Any) -> Evidence:
        return evidence_of(truth, box)

    monkeypatch.setattr(fragments, "collect_evidence", collected)
    inference = InferenceSettings(
        instance_block=(40, 40, 40), instance_overlap=24, min_object_voxels=5
    )
    predictor: Any = SimpleNamespace(
        inference=inference, hierarchy=HIERARCHY, finder=None, joining=PLAIN
    )
    view: Any = SimpleNamespace(shape=truth.shape)
    whole = evidence_of(truth, whole_box((64, 64, 40)))
    scale = boundary_scale([fragments._histogram(whole, VOXEL)])
    found = np.zeros(truth.shape, np.uint64)
    boxes = tile_boxes(whole_box((64, 64, 40)), core)
    starts = [sorted({box[axis][0] for box in boxes}) for axis in range(3)]
    indices = [tuple(s.index(b[0]) for s, b in zip(starts, box, strict=True)) for box in boxes]
    for index, box in zip(indices, boxes, strict=True):
        part = fragments.fragments_in(predictor, view, VOXEL, box, scale, tmp_path)
        save_part(tmp_path, index, part)
        found[box_slices(box)] = part.ids
    for index in indices:
        contacts_between(tmp_path, index, indices, VOXEL)
    told = join_fragments(tmp_path, predictor)
    ids = objects_of(tmp_path, found).astype(np.int64)
    inference = inference.model_copy(update={"instance_block": (80, 80, 80)})
    one = group_volume(whole, VOXEL, inference).objects(PLAIN, HIERARCHY, 5).ids
    error, alone = (adapted_rand_error(contingency(truth, i)) for i in (ids, one))
    assert alone < 0.02 and abs(error - alone) < 0.001, "as good as grouped in one"
    assert abs(told["objects"] - 60) <= 2 and told["largest_share"] < 0.2
    assert set(np.unique(ids).tolist()) <= set(np.unique(found).tolist()), "no new ids"


def test_joining_again_gives_the_same(folder: Path) -> None:
    from lib.blocks.tasks import workspace

    out = folder / "seg.zarr"
    before = (out / ".neuropil" / "lut-objects.npy").read_bytes()
    join_fragments(out, workspace(str(out)).predictor)
    assert (out / ".neuropil" / "lut-objects.npy").read_bytes() == before


def test_a_run_that_died_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, add, blocks = case(tmp_path), Ledger.add, [0]

    def died(ledger: Ledger, entry: Entry) -> None:
        blocks[0] += 1
        if blocks[0] == 5:
            raise KeyboardInterrupt
        add(ledger, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", died)
        run(other, "seg.zarr", code=130)
    run(other, "seg.zarr")
    assert bytes_of(other / "seg.zarr") == bytes_of(folder / "seg.zarr")


def test_what_only_neighbours_needed_goes_when_the_run_is_whole(folder: Path) -> None:
    parts = folder / "seg.zarr" / ".neuropil" / "parts"
    assert sorted(parts.glob("*.part.npz")) and not sorted(parts.glob("*.faces.npz"))
    with pytest.raises(VolumeError, match=r"faces\.npz: no such file"):
        contacts_between(folder / "seg.zarr", (0, 0, 0), [(0, 0, 0), (1, 0, 0)], VOXEL)


@pytest.mark.parametrize("box", ["1:36,3:26,2:17", "0:37,0:26,0:17", "5:7,0:9,0:5"])
def test_each_voxel_of_the_network_counts_once_wherever_the_box_begins(
    tmp_path: Path, box: str
) -> None:
    root = case(tmp_path)
    (root / "em.zarr" / ".zattrs").write_text('{"resolution": [40, 4, 4]}')  # two in one
    run(root, "seg.zarr", "--box", box, task="instances")
    x, y, z = (int(b) - int(a) for a, b in (span.split(":") for span in box.split(",")))
    with np.load(root / "seg.zarr" / ".neuropil" / "graph.npz") as graph:
        assert graph["votes"].sum() == -(-x // 2) * -(-y // 2) * z
    assert objects(root / "seg.zarr").shape == (x, y, z)


def test_both_is_for_volumes_in_zarr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, out="x.nii.gz", task="both")) == 1
    assert "--task both" in capsys.readouterr().err
