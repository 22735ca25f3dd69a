"""`evaluate` and `predict` on small studies: figures, splits, files and faults."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lib.commands import main
from lib.configs.settings import InferenceSettings, ModelSettings, Settings
from lib.decoding.click_sessions import clickable_objects
from lib.decoding.evaluate import EvaluationOptions, evaluate, pool_objects
from lib.decoding.evaluation_table import evaluation_table
from lib.decoding.predictor import Predictor
from lib.engine.checkpoints import save_weights
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.object_scores import contingency, object_report
from lib.networks.model import build_network
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


def test_clicks_are_measured_on_objects_that_are_large_enough(study: Study) -> None:
    options = EvaluationOptions(items=("set-a",), clicks=1, min_voxels=10)
    found = evaluate(predictor(), [study], options)
    clicks = found.to_dict()["items"]["set-a"]["clicks"]
    assert clicks["objects"] == 1 and 0 <= clicks["iou_after"]["1"] <= 1
    assert "NoC@85" in evaluation_table(found)
    ids = np.repeat([0, -1, 5, 6, 7], [9, 9, 3, 4, 5])
    assert clickable_objects(ids, 4) == [6, 7]
    assert clickable_objects(ids, 0, most=2) == [5, 7]


def test_a_study_without_known_voxels_says_so(study: Study) -> None:
    options = EvaluationOptions(items=("bare",))
    with pytest.raises(ValueError, match="no item among bare with a known voxel"):
        evaluate(predictor(), [study], options)


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
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "**set**" in printed and "axon" in printed and "ARE" in printed
    assert set(json.loads(out.read_text())) == {"data_sets", "items"}
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
