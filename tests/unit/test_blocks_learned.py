"""What a study learned is used by `predict`, in one run and block by block, as its server does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from block_cases import SETTINGS, bytes_of, case, command
from engine_cases import HIERARCHY

from lib.blocks.engine import OneProcess
from lib.blocks.ledger import Entry, Ledger
from lib.blocks.plan import BlockPlan, learned_path, read_plan
from lib.blocks.tasks import Workspace
from lib.commands import main
from lib.metrics.object_scores import adapted_rand_error, contingency
from lib.networks.digests import digest_of
from lib.networks.study_heads import BOUNDARY, CLASSES, StudyHeads, together
from lib.networks.weights import load_network
from lib.prediction.learned import Joining, Learned, Stored, save_heads, write_heads
from lib.volumes.readers.opening import open_source

OPTIONS = ["inference.object_threshold=0.0", "inference.min_object_voxels=1",
    "inference.instance_block=[24,24,12]", "inference.instance_overlap=8",
    "inference.long_range=[2,3]"]  # fmt: skip


def random_heads(weights: Path, outputs: dict[str, int], seed: int) -> StudyHeads:
    torch.manual_seed(seed)
    heads = StudyHeads(load_network(weights)[0].feature_channels, outputs, 6)
    torch.nn.init.normal_(heads.outer.weight)
    return heads.requires_grad_(False).eval()


def learned(weights: Path, seed: int = 1) -> Stored:
    """A study that says other classes, other boundaries and other joins than its network."""
    heads = random_heads(weights, {CLASSES: HIERARCHY.num_classes}, seed)
    boundary = random_heads(weights, {BOUNDARY: 1}, seed + 1)
    told = Learned("learned something", True, digest_of(weights), "labels")
    return Stored(told, heads, (), Joining(0.5), together(heads, boundary))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, and a study of one item of it that has learned."""
    root = case(tmp_path_factory.mktemp("learned"), (26, 20, 9))
    words = ["import", str(root / "em.zarr"), "--studies", str(root / "studies"), "--lazy"]
    assert main([*words, "--id", "item"]) == 0
    save_heads(root / "studies", learned(root / "tiny.pt"))
    assert main(words_of(root, "--learned", str(root / "studies"))) == 0
    return root


def plan_at(out: Path) -> BlockPlan:
    plan = read_plan(out)
    assert plan is not None
    return plan


def words_of(root: Path, *more: str, out: str = "seg.zarr", task: str = "both") -> list[str]:
    return [*command(root, *more, out=out, task=task), *OPTIONS]


def layer(out: Path, name: str) -> np.ndarray:
    return np.asarray(open_source(str(out / name)))


def item_map(root: Path, task: str, *more: str, changes: Sequence[str] = ()) -> np.ndarray:
    """What `predict --studies` writes of the item."""
    words = ["predict", "--studies", str(root / "studies"), "--weights", str(root / "tiny.pt")]
    words += ["--task", task, "--quiet", "--out", str(root / "maps"), *more]
    assert main([*words, "--set", *SETTINGS, *OPTIONS, "blocks.core=[64,64,32]", *changes]) == 0
    return np.asarray(open_source(str(root / "maps" / "item.nii.gz")))


def test_blocks_answer_what_the_study_s_own_predict_does(folder: Path) -> None:
    classes = item_map(folder, "segmentation")
    assert main(command(folder, out="published.zarr")) == 0
    assert (classes != layer(folder / "published.zarr", "classes")).mean() > 0.2, "it has learned"
    np.testing.assert_array_equal(layer(folder / "seg.zarr", "classes"), classes)


def test_objects_are_found_and_joined_as_the_study_learned(folder: Path) -> None:
    whole = [f"{k}=[32,32,16]" for k in ("blocks.core", "inference.window")]
    whole.append("inference.instance_block=[64,64,64]")
    one = item_map(folder, "instances", changes=whole)
    use = ("--learned", str(folder / "studies"))
    assert main([*words_of(folder, *use, out="one.zarr", task="instances"), *whole]) == 0
    assert main([*words_of(folder, out="plain.zarr", task="instances"), *whole]) == 0
    error, without = (
        adapted_rand_error(contingency(one, layer(folder / n, "objects").astype(np.int64)))
        for n in ("one.zarr", "plain.zarr")
    )
    assert error < 0.01, "one block says what one run says"
    assert without > 0.1, "it has learned"


def test_workers_give_the_bytes_of_one_process(folder: Path) -> None:
    pytest.importorskip("distributed")
    learned_from = ["--learned", str(folder / "studies")]
    assert main(words_of(folder, *learned_from, "--workers", "2", out="two.zarr")) == 0
    assert bytes_of(folder / "two.zarr") == bytes_of(folder / "seg.zarr")


def test_items_by_workers_are_those_of_the_study_s_own_predict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = contextmanager(lambda count, limit: (yield OneProcess()))
    monkeypatch.setattr("lib.blocks.commands.local_workers", crew)  # tested above
    alone = item_map(folder, "segmentation")
    np.testing.assert_array_equal(item_map(folder, "segmentation", "--workers", "2"), alone)


def test_a_run_goes_on_with_what_it_began_with_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = case(tmp_path, (30, 18, 17))
    study, add, blocks = root / "studies", Ledger.add, [0]
    words = ["import", str(root / "em.zarr"), "--studies", str(study), "--lazy", "--id", "item"]
    assert main(words) == 0
    before = learned(root / "tiny.pt")
    save_heads(study, before)
    run = command(root, "--learned", str(study))

    def refitted(ledger: Ledger, entry: Entry) -> None:
        blocks[0] += 1
        if blocks[0] == 2:
            save_heads(study, learned(root / "tiny.pt", seed=7))
        if blocks[0] == 5:
            raise KeyboardInterrupt
        add(ledger, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", refitted)
        assert main(run) == 130
    capsys.readouterr()
    assert main(run) == 1
    told = capsys.readouterr().err
    assert "study heads" in told and "the same command to go on" in told
    assert main(command(root)) == 1
    assert "now (none)" in capsys.readouterr().err
    save_heads(study, replace(before, learned=replace(before.learned, sentence="again the same")))
    assert main(run) == 0
    assert main(command(root, "--learned", str(study), out="straight.zarr")) == 0
    assert bytes_of(root / "seg.zarr") == bytes_of(root / "straight.zarr")


def test_what_is_not_in_use_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = case(tmp_path, (12, 10, 8))
    study = root / "studies"
    words = ["import", str(root / "em.zarr"), "--studies", str(study), "--lazy", "--id", "item"]
    assert main(words) == 0
    assert main(command(root)) == 0
    published = layer(root / "seg.zarr", "classes")

    def told(name: str, *more: str) -> str:
        capsys.readouterr()
        assert main([*command(root, "--learned", str(study), out=name), *more]) == 0
        assert (layer(root / name, "classes") == published).all()
        return capsys.readouterr().err

    assert "nothing that was learned there is in use" in told("none.zarr")
    kept = learned(root / "tiny.pt")
    save_heads(study, replace(kept, learned=replace(kept.learned, parent="0" * 64)))
    assert "sits on other weights" in told("other.zarr")
    save_heads(study, kept)
    assert not told("off.zarr", "adaptation.enabled=false")
    assert main(["predict", "--studies", str(study), "--learned", str(study)]) == 1
    assert "--learned is for --image" in capsys.readouterr().err


def test_a_snapshot_that_was_changed_by_hand_is_refused(folder: Path) -> None:
    out = folder / "seg.zarr"
    content = learned_path(out).read_bytes()
    assert Workspace(out, plan_at(out)).predictor.grouping is not None
    write_heads(learned_path(out), learned(folder / "tiny.pt", seed=5))
    with pytest.raises(ValueError, match="as when the run began"):
        assert Workspace(out, plan_at(out)).predictor
    learned_path(out).write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"learned\.pt: cannot be read"):
        assert Workspace(out, plan_at(out)).predictor


@pytest.mark.parametrize("level", ["coarse", "fallback"])
def test_both_gives_the_level_of_classes_that_is_asked_for(folder: Path, level: str) -> None:
    assert main(words_of(folder, "--level", level, out=f"{level}.zarr")) == 0
    assert main(words_of(folder, "--level", level, out=f"{level}1.zarr", task="segmentation")) == 0
    one, other = (layer(folder / n, "classes") for n in (f"{level}.zarr", f"{level}1.zarr"))
    np.testing.assert_array_equal(one, other)
    assert (one != layer(folder / "seg.zarr", "classes")).any()
