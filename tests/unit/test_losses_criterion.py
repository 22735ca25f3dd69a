"""The whole criterion: keys, weights, unknown voxels, and equality with the plain one."""

from typing import Any

import pytest
import torch
from criterion_cases import HIERARCHY, TWO_CLASSES, cells, random_batch, random_outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import plain_criterion as plain
from lib.configs.settings import LossSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.losses.criterion import Criterion
from lib.targets.prepare import prepare_targets

TERMS = {
    "loss_sem": ("ce", "iou", "dice", "coarse"),
    "loss_ins": ("pull", "push", "norm"),
    "loss_geom": ("dir", "cov", "raw"),
}
ALL_KEYS = {"loss", *TERMS, *(f"{b}/{t}" for b, ts in TERMS.items() for t in ts)}
SPACING = (6.0, 6.0, 30.0)


def plain_terms(
    batch: dict[str, Any],
    outputs: dict[str, Tensor],
    loss: LossSettings,
    hierarchy: LabelHierarchy,
    classes: Tensor | None,
) -> dict[str, Tensor]:
    """Every term by the plain criterion, from the labels on."""
    sets, instance = plain.resolved(batch, hierarchy), batch["instance"]
    spacing = SPACING[: instance.ndim - 1]
    maps = [m.numpy() for m in instance]
    edge = [plain.edge_weight(m, loss.weight_edge) for m in maps]
    bone = [plain.bone_weight(m, spacing, loss.weight_bone) for m in maps]
    weight = torch.stack([torch.from_numpy(e * b) for e, b in zip(edge, bone, strict=True)])
    direction = torch.stack([torch.from_numpy(plain.direction(m, spacing)) for m in maps])
    tensor = torch.stack(
        [torch.from_numpy(plain.tensor(m, spacing, loss.cov_sigma_nm, 12.0)) for m in maps]
    )
    foreground = instance > 0
    region = foreground
    if loss.raw_region == "known":
        region = foreground | ((sets != hierarchy.unknown) & (instance >= 0))
    image = batch["image"].double()
    semantic = plain.semantic_terms(outputs["semantic"], outputs["coarse"], sets, hierarchy)
    embedding = plain.instance_terms(outputs["instance"], instance, weight, loss, classes)
    shapes = plain.geometry_terms(outputs["geometry"], image, foreground, region, direction, tensor)
    named = {"loss_sem": semantic, "loss_ins": embedding, "loss_geom": shapes}
    return {f"{b}/{t}": v for b, terms in named.items() for t, v in terms.items()}


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(9, 8), (8, 7, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_equal_the_plain_criterion(
    seed: int, shape: tuple[int, ...], per_class: bool
) -> None:
    loss = LossSettings(raw_region="known" if seed else "foreground", cov_sigma_nm=9.0)
    batch = random_batch(seed, shape)
    outputs = random_outputs(seed, batch)
    targets = prepare_targets(batch, HIERARCHY, loss)
    classes = targets.semantic_ids if per_class else None
    passed = {"semantic_ids": classes} if classes is not None else {}
    fast = Criterion(loss, HIERARCHY)({**outputs, **passed}, targets)
    slow = plain_terms(batch, outputs, loss, HIERARCHY, classes)
    assert set(fast) == ALL_KEYS
    for key, value in slow.items():
        torch.testing.assert_close(fast[key], value, rtol=1e-4, atol=1e-6)
    parts = [
        getattr(loss, f"weight_{b}") * getattr(loss, f"weight_{t}") * slow[f"{k}/{t}"]
        for k, b in zip(TERMS, ("semantic", "instance", "geometry"), strict=True)
        for t in TERMS[k]
    ]
    total = torch.stack(parts).sum()
    torch.testing.assert_close(fast["loss"], total, rtol=1e-4, atol=1e-6)
    got = torch.autograd.grad(fast["loss"], list(outputs.values()))
    expected = torch.autograd.grad(total, list(outputs.values()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    unknown=st.sampled_from([0.0, 0.3, 0.8]),
    region=st.sampled_from(["foreground", "known"]),
    per_class=st.booleans(),
    two_classes=st.booleans(),
)
def test_every_term_has_zero_gradient_at_unknown_voxels(
    seed: int, unknown: float, region: str, per_class: bool, two_classes: bool
) -> None:
    hierarchy = TWO_CLASSES if two_classes else HIERARCHY
    batch = random_batch(seed, (6, 5, 3), objects=4, unknown=unknown, hierarchy=hierarchy)
    hidden = torch.rand(batch["instance"].shape, generator=torch.Generator().manual_seed(seed))
    hidden = hidden < 0.3  # nothing at all is known here
    batch["instance"][hidden] = -1
    batch["class_sets"][hidden] = hierarchy.unknown
    outputs = random_outputs(seed, batch, hierarchy, dtype=torch.float32)
    loss = LossSettings.model_validate({"raw_region": region})
    targets = prepare_targets(batch, hierarchy, loss)
    passed = {"semantic_ids": targets.semantic_ids} if per_class else {}
    result = Criterion(loss, hierarchy)({**outputs, **passed}, targets)
    instance_unknown = batch["instance"] <= 0
    for key, value in result.items():
        assert bool(value.isfinite())
        grads = torch.autograd.grad(
            value, list(outputs.values()), retain_graph=True, allow_unused=True
        )
        for name, grad in zip(outputs, grads, strict=True):
            if grad is None:
                continue
            places = grad.abs().sum(1)
            assert bool(grad.isfinite().all()), (key, name)
            assert float(places[hidden].sum()) == 0.0, (key, name)
            if name in ("semantic", "coarse"):
                assert float(places[~targets.known].sum()) == 0.0
            if name == "instance" or key in ("loss_geom/dir", "loss_geom/cov"):
                assert float(places[instance_unknown].sum()) == 0.0, (key, name)


@pytest.mark.parametrize("hierarchy", [HIERARCHY, TWO_CLASSES])
def test_a_batch_of_unknown_voxels_has_loss_zero(hierarchy: LabelHierarchy) -> None:
    batch = random_batch(0, hierarchy=hierarchy)
    batch["instance"][:], batch["class_sets"][:] = -1, hierarchy.unknown
    outputs = random_outputs(0, batch, hierarchy)
    loss = LossSettings(raw_region="known")
    result = Criterion(loss, hierarchy)(outputs, prepare_targets(batch, hierarchy, loss))
    assert {v.item() for v in result.values()} == {0.0}
    grads = torch.autograd.grad(result["loss"], list(outputs.values()), allow_unused=True)
    assert all(g is None or float(g.abs().max()) == 0.0 for g in grads if g is None or g.numel())


def test_predictions_at_unknown_voxels_do_not_change_the_loss() -> None:
    batch, loss = random_batch(4), LossSettings()
    hidden = batch["instance"] < 0
    batch["class_sets"][hidden] = HIERARCHY.unknown
    outputs = random_outputs(4, batch)
    targets, criterion = prepare_targets(batch, HIERARCHY, loss), Criterion(loss, HIERARCHY)
    before = criterion(outputs, targets)
    changed = {k: torch.where(hidden.unsqueeze(1), 1e3, v) for k, v in outputs.items()}
    after = criterion(changed, targets)
    assert {k: v.item() for k, v in before.items()} == {k: v.item() for k, v in after.items()}


def test_without_hierarchy_there_is_no_coarse_term() -> None:
    batch = random_batch(0, hierarchy=TWO_CLASSES)
    loss = LossSettings()
    targets = prepare_targets(batch, TWO_CLASSES, loss)
    outputs = random_outputs(0, batch, TWO_CLASSES)
    result = Criterion(loss, TWO_CLASSES)(outputs, targets)
    assert set(result) == ALL_KEYS - {"loss_sem/coarse"}


TERM_WEIGHTS = [
    name
    for name, field in LossSettings.model_fields.items()
    if name.startswith("weight_")
    and name not in ("weight_edge", "weight_bone")  # weights of voxels
    and field.default > 0  # the others are absent anyway: see the test below
]


def test_the_near_term_is_there_when_asked_for() -> None:
    batch, loss = random_batch(1), LossSettings(weight_near=1.0)
    result = Criterion(loss, HIERARCHY)(
        random_outputs(1, batch), prepare_targets(batch, HIERARCHY, loss)
    )
    assert set(result) == ALL_KEYS | {"loss_ins/near"}


@pytest.mark.parametrize("name", TERM_WEIGHTS)
def test_a_weight_of_zero_removes_its_term(name: str) -> None:
    loss = LossSettings.model_validate({name: 0.0})
    batch = random_batch(1)
    outputs = random_outputs(1, batch)
    if name == "weight_geometry":
        del outputs["geometry"]
    result = Criterion(loss, HIERARCHY)(outputs, prepare_targets(batch, HIERARCHY, loss))
    key = name.removeprefix("weight_")
    branch = {"semantic": "loss_sem", "instance": "loss_ins", "geometry": "loss_geom"}.get(key)
    gone = {k for k in ALL_KEYS if k.endswith(f"/{key}") or (branch and k.startswith(branch))}
    assert gone and set(result) == ALL_KEYS - gone


def test_all_weights_zero_is_refused() -> None:
    loss = LossSettings(weight_semantic=0.0, weight_instance=0.0, weight_geometry=0.0)
    batch = random_batch(0)
    targets = prepare_targets(batch, HIERARCHY, loss)
    with pytest.raises(ValueError, match="every weight is 0"):
        Criterion(loss, HIERARCHY)(random_outputs(0, batch), targets)


def test_half_precision_outputs_are_computed_in_float32() -> None:
    batch, loss = random_batch(6), LossSettings()
    targets, criterion = prepare_targets(batch, HIERARCHY, loss), Criterion(loss, HIERARCHY)
    outputs = random_outputs(6, batch, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = criterion(outputs, targets)
    expected = criterion({k: v.float() for k, v in outputs.items()}, targets)
    assert result["loss"].dtype == torch.float32
    torch.testing.assert_close(result["loss"], expected["loss"])


def test_autocast_does_not_touch_targets() -> None:
    batch, loss = random_batch(6), LossSettings()
    expected = prepare_targets(batch, HIERARCHY, loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = prepare_targets(batch, HIERARCHY, loss)
    assert targets.tensor is not None and expected.tensor is not None
    assert torch.equal(targets.tensor, expected.tensor)


def test_memory_format_does_not_change_the_loss() -> None:
    batch, loss = random_batch(7), LossSettings()
    targets, criterion = prepare_targets(batch, HIERARCHY, loss), Criterion(loss, HIERARCHY)
    outputs = random_outputs(7, batch)
    last = {
        k: v.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        for k, v in outputs.items()
    }
    criterion(outputs, targets)["loss"].backward()
    criterion(last, targets)["loss"].backward()
    for name, value in outputs.items():
        torch.testing.assert_close(value.grad, last[name].grad)


def test_labels_of_another_shape_are_refused() -> None:
    batch = random_batch(0)
    batch["instance"] = batch["instance"][:, :-1]
    with pytest.raises(ValueError, match="instance: expected shape"):
        prepare_targets(batch, HIERARCHY, LossSettings())


def test_a_flat_patch_of_a_2d_item_trains_a_3d_network() -> None:
    batch, loss = random_batch(8, shape=(9, 8, 1)), LossSettings()
    outputs = random_outputs(8, batch)
    result = Criterion(loss, HIERARCHY)(outputs, prepare_targets(batch, HIERARCHY, loss))
    assert all(bool(v.isfinite()) for v in result.values())


def test_many_objects_of_large_ids() -> None:
    import numpy as np

    batch, loss = random_batch(9, shape=(24, 24, 6), batch=1), LossSettings()
    ids = torch.from_numpy(cells(np.random.default_rng(9), (24, 24, 6), 1000))[None]
    outputs = random_outputs(9, batch)
    small = Criterion(loss, HIERARCHY)(
        outputs, prepare_targets(batch | {"instance": ids}, HIERARCHY, loss)
    )
    large = torch.where(ids > 0, 2**32 - 2 - ids, ids)
    other = Criterion(loss, HIERARCHY)(
        outputs, prepare_targets(batch | {"instance": large}, HIERARCHY, loss)
    )
    for key, value in small.items():
        torch.testing.assert_close(other[key], value)
