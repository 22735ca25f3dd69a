"""`evaluate` and `predict` on small studies: figures, splits, files and faults."""

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from lib.commands import main
from lib.configs.settings import InferenceSettings, ModelSettings, Settings
from lib.engine.options import load_items
from lib.evaluation.click_sessions import Answers, app_answers, clickable_objects
from lib.evaluation.evaluate import EvaluationOptions, evaluate
from lib.evaluation.figures import pool_objects
from lib.evaluation.table import evaluation_table
from lib.evaluation.truth import parts_of
from lib.evaluation.worst_cases import WorstCases, class_picture, click_picture
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.clicks import Click
from lib.metrics.object_scores import best_overlaps, contingency, object_report
from lib.metrics.spread import spread_of
from lib.networks.model import build_network
from lib.networks.weights import save_weights
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import box_slices
from lib.volumes.options import existing_study
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
AXON = 1 << HIERARCHY.class_names.index("axon")
INFERENCE = InferenceSettings(
    window=(24, 24, 8), precision="float32", min_object_voxels=4, click_window=(24, 24, 8)
)
VOXEL = (10.0, 10.0, 20.0)


def network(**model):
    torch.manual_seed(0)
    settings = Settings(model=ModelSettings(feature_size=8, **model), inference=INFERENCE)
    return build_network(settings.model, settings.loss, HIERARCHY).eval(), settings


@pytest.fixture
def study(tmp_path: Path) -> Study:
    rng = np.random.default_rng(0)
    study = Study(tmp_path / "study", HIERARCHY)
    for name, split in (("set-a", "val"), ("set-b", "val"), ("set-c", "train"), ("other", None)):
        image = rng.integers(0, 255, (24, 24, 8), np.uint8)
        sets = np.full(image.shape, AXON, np.int32)
        sets[:4] = HIERARCHY.unknown
        ids = np.ones(image.shape, np.int64)
        ids[12:], ids[:4] = 2, -1
        study.add_item(name, image, VOXEL, sets, ids, split=split)
    study.add_item("bare", rng.integers(0, 255, (24, 24, 8), np.uint8), VOXEL)
    return study


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    net, settings = network()
    path = tmp_path / "weights.pt"
    save_weights(path, net.state_dict(), settings, HIERARCHY)
    return path


def predictor(**model) -> Predictor:
    net, settings = network(**model)
    return Predictor(net, HIERARCHY, INFERENCE, settings.model.finest_nm)


def test_known_voxels_of_the_split_are_measured(study: Study) -> None:
    found = evaluate(predictor(), [study], EvaluationOptions()).to_dict()
    assert "set-c" not in found["items"] and "bare" not in found["items"]
    assert found["items"]["set-a"]["classes"]["voxels"] == 20 * 24 * 8
    assert found["items"]["set-a"]["objects"]["true_objects"] == 2
    pooled = found["data_sets"]["set"]
    assert pooled["classes"]["voxels"] == 2 * 20 * 24 * 8
    train = evaluate(predictor(), [study], EvaluationOptions(split="train")).to_dict()
    assert "set-c" in train["items"] and "set-a" not in train["items"]
    everything = evaluate(predictor(), [study], EvaluationOptions(split="all")).to_dict()
    assert {"set-a", "set-b", "set-c", "other"} == set(everything["items"])


def test_classes_are_scored_as_the_network_predicts_them(study: Study) -> None:
    made = predictor()
    item = study.item("set-a")
    predicted = made.classes(item.open_image(), VOXEL, "fine")
    expected = (predicted[4:] == HIERARCHY.class_names.index("axon") + 1).mean()
    options = EvaluationOptions(items=("set-a",))
    found = evaluate(made, [study], options).to_dict()["items"]["set-a"]
    assert found["classes"]["set_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_fine_voxels_are_measured_on_the_images_own_grid(tmp_path: Path) -> None:
    study = Study(tmp_path / "fine", HIERARCHY)
    image = np.random.default_rng(1).integers(0, 255, (31, 24, 8), np.uint8)
    study.add_item("a", image, (4.0, 4.0, 40.0), np.full(image.shape, AXON, np.int32), split="val")
    made = predictor(finest_nm=10.0)
    found = evaluate(made, [study], EvaluationOptions()).to_dict()
    assert found["items"]["a"]["classes"]["voxels"] == image.size
    assert made.objects(image, (4.0, 4.0, 40.0)).ids.shape == image.shape


def test_clicks_start_from_the_fragments_of_the_objects_that_were_found(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Fragments | None] = []

    def spied(*given: Any) -> Answers:
        seen.append(given[3])
        return app_answers(*given)

    monkeypatch.setattr("lib.evaluation.evaluate.app_answers", spied)
    evaluate(predictor(), [study], EvaluationOptions(items=("set-a",), clicks=1))
    assert len(seen) == 1 and seen[0] is not None and seen[0].graph.count > 0


def test_clicks_are_measured_on_objects_that_are_large_enough(study: Study) -> None:
    options = EvaluationOptions(items=("set-a",), clicks=1, min_voxels=10)
    found = evaluate(predictor(), [study], options)
    clicks = found.to_dict()["items"]["set-a"]["clicks"]
    assert clicks["objects"] == 1 and 0 <= clicks["iou_after"]["1"] <= 1
    rows = [line for line in evaluation_table(found).splitlines() if line.startswith("| **set**")]
    assert "NoC@85" in evaluation_table(found)
    assert len(rows) == 3 and all(r.startswith("| **set** (set-a) |") for r in rows), "each once"
    assert "| set-a |" not in evaluation_table(found)
    ids = np.repeat([0, -1, 5, 6, 7], [9, 9, 3, 4, 5])
    assert clickable_objects(ids, 4) == [6, 7]
    assert clickable_objects(ids, 0, most=2) == [5, 7]


def spoil(study: Study) -> None:
    """One image and one label become unreadable; they are those of two items."""
    (study.root / "set-a.nii").write_bytes(b"no image" * 50)
    (study.root / "labels" / "final" / "other.nii.gz").write_bytes(b"no label" * 50)
    (study.root / "a:b.txt.nii").symlink_to(study.root / "nowhere")


def test_what_cannot_be_read_is_left_out_and_named(
    study: Study, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(study)
    words = ["--studies", str(study.root), "--weights", str(weights), "--clicks", "0", "--quiet"]
    assert main(["evaluate", *words, "--split", "all"]) == 0
    told = capsys.readouterr()
    assert "set-b" in told.out and "set-a" not in told.out
    left_out = [line for line in told.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3
    for name in ("set-a.nii", "other.nii.gz", "a:b.txt.nii"):
        assert any(name in line for line in left_out)
    assert main(["evaluate", *words, "--items", "set-a"]) == 1, "it was asked for by name"
    assert "set-a.nii" in capsys.readouterr().err


def test_nothing_but_unreadable_items_is_an_error_that_says_why(study: Study) -> None:
    for path in study.root.glob("*.nii"):
        path.write_bytes(b"no image" * 50)
    with pytest.raises(ValueError, match=r"no item with a known voxel.*left out: .*bare\.nii"):
        evaluate(predictor(), [study], EvaluationOptions())


def test_training_leaves_out_and_names_what_cannot_be_read(study: Study) -> None:
    spoil(study)
    said: list[str] = []
    items = load_items(Settings(), (study.root,), said.append)
    assert [item.id for item in items] == ["set-b", "set-c"]
    assert len(said) == 3 and all(s.startswith("left out: ") for s in said)


def test_links_out_of_the_study_neither_train_nor_measure(study: Study, tmp_path: Path) -> None:
    """Images and labels, each with the other inside the study."""
    outside = tmp_path / "outside"
    outside.mkdir()
    labels = study.root / "labels" / "final"
    for path in (study.root / "set-a.nii", labels / "set-b.nii.gz", labels / "other.nii.gz"):
        path.rename(outside / path.name)
        path.symlink_to(outside / path.name)
    (study.root / "labels" / "instance" / "other.nii.gz").unlink()
    said: list[str] = []
    items = load_items(Settings(), (study.root,), said.append)
    assert [item.id for item in items] == ["set-b", "set-c"], "set-b by its objects"
    assert "set-a.nii: a link out of the study" in said[0] and "follow_links" in said[0]
    assert not study.item("set-b").has_label("final")
    assert (study.item("set-b").read_class_sets() == HIERARCHY.unknown).all()
    follow = Settings.model_validate({"server": {"follow_links": True}})
    followed = load_items(follow, (study.root,), said.append)
    assert [item.id for item in followed] == ["other", "set-a", "set-b", "set-c"]
    both = (existing_study(study.root, s) for s in (Settings(), follow))
    options = EvaluationOptions(split="all")
    measured = [[i.item for i in evaluate(predictor(), [s], options).items] for s in both]
    assert measured == [["set-b", "set-c"], ["other", "set-a", "set-b", "set-c"]]


def test_a_study_without_known_voxels_says_so(study: Study) -> None:
    options = EvaluationOptions(items=("bare",))
    with pytest.raises(ValueError, match="no item among bare with a known voxel"):
        evaluate(predictor(), [study], options)


def test_figures_spread_over_sections_and_pool_to_the_whole(study: Study) -> None:
    made, options = predictor(), EvaluationOptions(items=("set-a", "set-b"))
    found = evaluate(made, [study], options)
    sections = [
        (made.classes(item.open_image(), VOXEL, "fine")[4:, :, z] == AXON.bit_length()).mean()
        for item in (study.item("set-a"), study.item("set-b"))
        for z in range(8)
    ]
    spread = found.to_dict()["data_sets"]["set"]["classes"]["spread"]["classes"]["axon"]["iou"]
    assert spread["mean"] == pytest.approx(np.mean(sections), abs=1e-6)
    assert spread["std"] == pytest.approx(np.std(sections), abs=1e-6)
    quartiles = [spread[k] for k in ("min", "q1", "median", "q3", "max")]
    assert quartiles == pytest.approx(np.quantile(sections, [0, 0.25, 0.5, 0.75, 1]), abs=1e-6)
    assert spread_of([float("nan")]) is None


def test_a_single_section_is_cut_into_tiles() -> None:
    seen = np.zeros((10, 2, 1), int)
    parts = parts_of((10, 2, 1), 2)
    for part in parts:
        seen[box_slices(part.box)] += 1
    assert len(parts) == 6 and (seen == 1).all()
    assert [p.box for p in parts_of((3, 4, 5), 0)] == [
        ((z, z + 1), (0, 4), (0, 5)) for z in (0, 1, 2)
    ]


def test_the_best_overlap_of_each_object() -> None:
    truth = np.repeat([-1, 0, 1, 2, 3], [5, 10, 10, 10, 2])
    guess = np.repeat([7, 0, 7, 7, 8, 9], [5, 5, 5, 4, 16, 2])
    # 1: 4 of 7 and 6 of 8; 2: 8 only; 3: missed by 8 and found by 9.
    assert best_overlaps(contingency(truth, guess)) == pytest.approx(
        {1: 6 / 20, 2: 10 / 16, 3: 1.0}
    )
    assert set(best_overlaps(contingency(truth, guess), min_voxels=3)) == {1, 2}


def test_only_the_worst_cases_are_drawn_and_kept(tmp_path: Path) -> None:
    worst, drawn = WorstCases(2), []
    for value in (0.5, 0.9, float("nan"), 0.1, 0.7, 0.3):

        def draw(value: float = value) -> np.ndarray:
            drawn.append(value)
            return np.full((4, 5, 3), value, np.float32)

        worst.offer("some set", "IoU", value, "item", f"section {value}", draw)
    assert drawn == [0.5, 0.9, 0.1, 0.3]
    paths = worst.write(tmp_path)
    assert [np.asarray(Image.open(p))[0, 0, 0] for p in paths] == [26, 76]
    assert "section 0.1" in (tmp_path / "worst.md").read_text()


def test_pictures_show_what_is_wrong() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 1), np.uint8)
    sets = np.full(image.shape, HIERARCHY.unknown, np.int32)
    sets[:10], sets[10:15] = AXON, HIERARCHY.unknown & ~AXON
    guess = np.full(image.shape, AXON.bit_length() - 1, np.int16)
    width = 8 * 20 + 4
    picture = class_picture(image, sets, guess, HIERARCHY)
    assert picture.shape == (8 * 30, 3 * 8 * 20 + 2 * 4, 3)
    bare, truth, found = (picture[:, n * width :][:, : 8 * 20] for n in range(3))
    changed = [(np.abs(p - bare) > 1e-6).any(2).mean(0).round() for p in (truth, found)]
    assert changed[0].tolist() == [1.0] * 80 + [0.0] * 80
    assert changed[1].tolist() == [1.0] * 120 + [0.0] * 40, "wrong where it must not be axon"
    mask = np.zeros((20, 30, 3), bool)
    mask[5:9, 5:9, 1] = True
    volume = np.repeat(image, 3, 2)
    clicked = click_picture(volume, mask, ~mask & mask, [Click((6, 7, 1), True)])
    assert (clicked[7 * 8, 6 * 8] == 1).all() and clicked.shape == picture.shape


def test_pooled_objects_weigh_by_voxels() -> None:
    one = object_report(contingency(np.ones(10, int), np.repeat([1, 2], 5)))
    other = object_report(contingency(np.ones(30, int), np.ones(30, int)))
    pooled = pool_objects([one, other])
    assert pooled.voi_split == pytest.approx(0.25) and pooled.true_objects == 2
    assert pooled.matches[0.5].matched == 2 and pooled.matches[0.5].false_alarms == 1


def test_the_evaluate_command_prints_and_writes(
    study: Study, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    line = ["evaluate", "--studies", str(study.root), "--weights", str(weights), "--quiet"]
    line += ["--set", "inference.precision=float32", "--device", "cpu", "--json", str(out)]
    line += ["--clicks", "1", "--worst", str(tmp_path / "worst")]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "**set**" in printed and "axon" in printed and "ARE" in printed
    assert printed.startswith("Known voxels of split val; ") and "without what" in printed
    found = json.loads(out.read_text())
    assert set(found) == {"about", "data_sets", "items", "left_out"}
    about, digest = found["about"], hashlib.sha256(weights.read_bytes()).hexdigest()
    assert about["weights"]["sha256"] == digest and about["split"] == "val"
    figures = found["data_sets"]["set"]
    assert figures["classes"]["spread"]["classes"]["axon"]["iou"]["count"] == 2 * 8
    assert figures["objects"]["spread"]["are"]["count"] == 2 * 8
    assert figures["objects"]["spread"]["best_iou"]["count"] == 2 * 2
    assert figures["clicks"]["spread"]["noc_85"]["count"] == figures["clicks"]["objects"] == 2
    listed = (tmp_path / "worst" / "worst.md").read_text()
    for path in (tmp_path / "worst").glob("*.png"):
        assert path.name in listed and Image.open(path).width >= 3 * 240
    assert {p.name.rpartition("-")[0] for p in (tmp_path / "worst").glob("set*.png")} == {
        "set-class_iou", "set-objects_1_are", "set-iou_after_3_clicks"
    }  # fmt: skip
    assert main([*line, "--items", "bare"]) == 1
    assert "no item among bare" in capsys.readouterr().err


def test_the_predict_command_writes_study_maps(
    study: Study, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["predict", "--studies", str(study.root), "--weights", str(weights), "--quiet"]
    line += ["--items", "bare", "--device", "cpu"]
    assert main(line) == 0
    assert main([*line, "--task", "instances"]) == 0
    assert "objects" in capsys.readouterr().out
    classes = nib.load(study.root / "labels" / "original" / "bare.nii.gz")
    assert classes.shape == (24, 24, 8) and classes.get_data_dtype() == np.uint8
    ids = nib.load(study.root / "labels" / "instance_predicted" / "bare.nii.gz")
    assert ids.get_data_dtype() == np.uint32
    np.testing.assert_allclose(ids.header.get_zooms(), VOXEL)


def test_the_predict_command_names_what_it_leaves_out(
    study: Study, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study.root / "corrupt.nii.gz").write_bytes(b"x")
    (study.root / "bare.png").write_bytes(b"x")
    line = ["predict", "--studies", str(study.root), "--weights", str(weights), "--quiet"]
    line += ["--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(line) == 0
    told = capsys.readouterr().err
    assert "left out: bare.png: bare.nii has the same id" in told and "corrupt.nii.gz" in told
    assert len(list((tmp_path / "out").iterdir())) == len(study.items()) - 1
    assert main([*line, "--items", "corrupt"]) == 1, "what was asked for by name must be there"


def test_the_predict_command_takes_a_file(
    study: Study, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = study.root / "bare.nii", tmp_path / "map.nii.gz"
    line = ["predict", "--weights", str(weights), "--quiet", "--device", "cpu"]
    level = ["--level", "coarse"]
    assert main([*line, "--image", str(image), "--out", str(out), *level]) == 0
    assert np.asarray(nib.load(out).dataobj).min() >= 101
    assert main([*line, "--image", str(image), "--out", str(tmp_path / "map.png")]) == 1
    assert "ends in .nii.gz" in capsys.readouterr().err
    assert main([*line, "--image", str(image), "--studies", str(study.root)]) == 1
    assert "either" in capsys.readouterr().err
    missing = ["predict", "--weights", str(tmp_path / "none.pt"), "--image", str(image)]
    assert main(missing) == 1
    assert "no such file" in capsys.readouterr().err
