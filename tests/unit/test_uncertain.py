"""Uncertain means unknown, in class and object: nothing is learned there and nothing scored.

Only what is unlabelled may be narrowed by an object's id (spec/clarifications.md, "Uncertain
with an instance id").
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from criterion_cases import random_outputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from import_cases import H, items, run
from volume_files import hdf5

from lib.configs.settings import LossSettings
from lib.labels.hierarchy import IGNORE_INDEX
from lib.losses.criterion import Criterion
from lib.metrics.class_scores import ClassScores
from lib.metrics.object_scores import contingency, object_report
from lib.targets.prepare import prepare_targets
from lib.volumes.study import Study
from lib.volumes.writing import label_file

SHAPE = (6, 5, 4)
VALUES = {"canonical": [0, 1, 4, 12, 101, 105, 255], "plan": [0, 3, 11, 255]}
UNCERTAIN_VALUES = {"canonical": {255}, "plan": {255, -1}}


def imported(folder, values, ids, *words):
    """A study item of these labels, through the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("v.h5", "l.h5", "i.h5"):
        (folder / name).unlink(missing_ok=True)
    source = hdf5(folder / "v.h5", np.arange(120, dtype=np.uint8).reshape(SHAPE))
    label, objects = hdf5(folder / "l.h5", values), hdf5(folder / "i.h5", ids)
    asked = ["--semantic", label, "--instance", objects, "--replace", *words]
    assert run("import", source, "--studies", folder / "s", *asked) == 0
    return items(folder / "s")[0]


def drawn(data, encoding):
    values = data.draw(arrays(np.int16, SHAPE, elements=st.sampled_from(VALUES[encoding])))
    if encoding == "plan":
        values[values == 255] = data.draw(st.sampled_from([255, -1]))
    ids = data.draw(arrays(np.uint32, SHAPE, elements=st.sampled_from([0, 1, 2, 7])))
    return values, ids


@pytest.mark.parametrize("encoding", list(VALUES))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), full=st.booleans())
def test_uncertain_voxels_are_unknown_through_import(tmp_path, encoding, data, full):
    values, ids = drawn(data, encoding)
    words = ["--encoding", encoding, *(["--fully-annotated"] if full else [])]
    item = imported(tmp_path, values, ids, *words)
    uncertain = np.isin(values, list(UNCERTAIN_VALUES[encoding]))
    sets, found = item.read_class_sets(), item.read_instances()
    assert (sets[uncertain] == H.unknown).all() and (found[uncertain] == IGNORE_INDEX).all()
    assert (item.read_final()[uncertain] == 255).all(), "and it stays told apart from unlabelled"
    traced = (ids > 0) & ~uncertain
    assert (found[traced] == ids[traced]).all()
    if encoding == "canonical" and not full:
        assert (sets[(values == 0) & traced] == H.object_set).all(), "an id narrows unlabelled"


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_learned_or_scored_of_uncertain_voxels(tmp_path, seed):
    rng = np.random.default_rng(seed)
    values = rng.choice(VALUES["canonical"], SHAPE).astype(np.uint8)
    item = imported(tmp_path, values, rng.choice([0, 1, 2, 7], SHAPE).astype(np.uint32))
    uncertain = values == 255
    sets, found = (np.ascontiguousarray(v) for v in (item.read_class_sets(), item.read_instances()))
    batch = {
        "image": torch.rand(1, 1, *SHAPE),
        "class_sets": torch.from_numpy(sets)[None],
        "instance": torch.from_numpy(found)[None],
        "voxel_size_nm": torch.tensor([[4.0, 5.0, 40.0]]),
    }
    loss = LossSettings(raw_region="known", weight_near=1.0, overlap_region="excluded")
    outputs = random_outputs(seed, batch, H)
    targets = prepare_targets(batch, H, loss)
    Criterion(loss, H)(outputs, targets)["loss"].backward()
    mask = torch.from_numpy(uncertain)
    for name, value in outputs.items():
        assert value.grad is not None and (value.grad[0][:, mask] == 0).all(), name
        assert (value.grad[0][:, ~mask] != 0).any(), name
    guess = (1 << rng.integers(0, H.num_classes, SHAPE)).astype(np.int32)
    other = np.where(uncertain, np.roll(guess, 1), guess).astype(np.int32)
    scores = [ClassScores(H), ClassScores(H)]
    for score, painted in zip(scores, (guess, other), strict=True):
        score.update_sets(sets, painted)
    assert scores[0].result().to_dict() == scores[1].result().to_dict()
    objects = rng.integers(1, 5, SHAPE)
    tables = [contingency(found, np.where(uncertain, n, objects)) for n in (99, 3)]
    assert object_report(tables[0]).to_dict() == object_report(tables[1]).to_dict()


@pytest.mark.parametrize("word", ["unknown", "unlabelled"])
def test_mapping_files_tell_unknown_from_unlabelled(tmp_path, word):
    (tmp_path / "m.yaml").write_text(f"values: {{1: axon, 7: {word}}}")
    values = np.where(np.arange(120).reshape(SHAPE) % 2, 7, 1).astype(np.uint8)
    item = imported(
        tmp_path / "f", values, np.full(SHAPE, 3, np.uint32), "--mapping", tmp_path / "m.yaml"
    )
    sets, ids = item.read_class_sets()[values == 7], item.read_instances()[values == 7]
    if word == "unknown":
        assert (sets == H.unknown).all() and (ids == IGNORE_INDEX).all()
    else:
        assert (sets == H.object_set).all() and (ids == 3).all()


def test_other_values_that_are_unknown(tmp_path):
    (tmp_path / "m.yaml").write_text("values: {1: axon}\nother: unknown")
    values = np.where(np.arange(120).reshape(SHAPE) % 2, 9, 1).astype(np.uint8)
    item = imported(
        tmp_path / "f", values, np.full(SHAPE, 3, np.uint32), "--mapping", tmp_path / "m.yaml"
    )
    assert (item.read_instances() == np.where(values == 9, IGNORE_INDEX, 3)).all()


def test_maps_that_others_put_into_a_study(tmp_path):
    """`final` says uncertain and `instance` an object: the object is not known there."""
    values = np.zeros(SHAPE, np.uint8)
    item = imported(tmp_path, values, np.full(SHAPE, 3, np.uint32))
    import nibabel as nib

    final = np.zeros(SHAPE, np.uint8)
    final[:3] = 255
    path = label_file(item.study.root, "final", item.id)
    nib.save(nib.Nifti1Image(final, np.eye(4)), path)
    again = Study(item.study.root, H).item(item.id)
    ids = again.read_instances()
    assert (ids[:3] == IGNORE_INDEX).all() and (ids[3:] == 3).all()
