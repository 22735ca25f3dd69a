"""Semantic loss: by hand, equal to PyTorch's cross-entropy for one class, masked elsewhere."""

import math

import torch
import torch.nn.functional as F
from criterion_cases import HIERARCHY, random_batch, random_outputs

from lib.configs.settings import LossSettings
from lib.losses.semantic import coarse_term, fine_terms
from lib.targets.prepare import Targets, prepare_targets

UNKNOWN = HIERARCHY.unknown
LOSS = LossSettings(weight_instance=0.0, weight_geometry=0.0)


def targets_of(sets: list[int]) -> Targets:
    """Targets of one row of voxels without instances."""
    class_sets = torch.tensor([[sets]], dtype=torch.int32)
    batch = {
        "image": torch.zeros((1, *class_sets.shape)),
        "class_sets": class_sets,
        "instance": torch.full(class_sets.shape, -1),
        "voxel_size_nm": torch.ones((1, 2)),
    }
    return prepare_targets(batch, HIERARCHY, LOSS)


def logits_of(columns: list[list[float]]) -> torch.Tensor:
    """(1, C, 1, V) logits, one column a voxel, padded with -inf-like classes."""
    out = torch.full((1, HIERARCHY.num_classes, 1, len(columns)), -1e4, dtype=torch.float64)
    for v, column in enumerate(columns):
        out[0, : len(column), 0, v] = torch.tensor(column)
    return out.requires_grad_()


def test_one_class_is_cross_entropy() -> None:
    sets = [1 << c for c in (0, 5, 11, 3)] + [UNKNOWN]
    logits = torch.randn((1, 12, 1, 5), generator=torch.Generator().manual_seed(0)).double()
    ce, _, _ = fine_terms(logits, targets_of(sets), overlap=False)
    labels = torch.tensor([[[0, 5, 11, 3, -1]]])
    torch.testing.assert_close(ce, F.cross_entropy(logits, labels, ignore_index=-1))


def test_a_set_by_hand() -> None:
    # p = (1/4, 1/4, 1/2): -log of the set {0, 1} is log 2, of {2} as well; unknown is left out.
    column = [0.0, 0.0, math.log(2)]
    logits = logits_of([column] * 3)
    ce, _, _ = fine_terms(logits, targets_of([0b11, 0b100, UNKNOWN]), overlap=False)
    torch.testing.assert_close(ce.item(), math.log(2))
    ce.backward()
    assert logits.grad is not None
    # p - q with q the set's own distribution, over two known voxels.
    assert torch.allclose(logits.grad[0, :3, 0, 0], torch.tensor([-0.125, -0.125, 0.25]).double())
    assert float(logits.grad[..., 2].abs().max()) == 0.0


def test_iou_and_dice_by_hand() -> None:
    # Classes 0 and 1, p(0) = 3/4 and 1/4; the third voxel is of several classes.
    logits = logits_of([[math.log(3), 0.0], [0.0, math.log(3)], [0.0, 0.0]])
    targets = targets_of([0b1, 0b10, 0b11])
    _, iou, dice = fine_terms(logits, targets, overlap=True)
    assert iou is not None and dice is not None
    # Each class: 3/4 in common, 1 predicted, 1 true.
    torch.testing.assert_close(float(iou), 1 - 0.75 / (2 - 0.75))
    torch.testing.assert_close(float(dice), 1 - 2 * 0.75 / 2)


def test_absent_classes_do_not_count_in_iou_and_dice() -> None:
    logits = logits_of([[50.0, 0.0], [50.0, 0.0]])
    _, iou, dice = fine_terms(logits, targets_of([0b1, 0b1]), overlap=True)
    assert iou is not None and dice is not None
    assert abs(float(iou)) < 1e-9 and abs(float(dice)) < 1e-9


def test_coarse_by_hand() -> None:
    # dendrite: all five bits known. {dendrite, glia}: neuron_part and glia open, three known.
    # Logits 0: every known bit costs log 2, the voxel's mean is log 2.
    # {extracellular space, dendrite, glia, myelin, nucleus}: no bit known, yet a known voxel.
    none = HIERARCHY.set_of([0, 2, 5, 6, 9])
    sets = [1 << 2, HIERARCHY.set_of([2, 5]), none, UNKNOWN]
    logits = torch.zeros((1, 5, 1, 4), dtype=torch.float64, requires_grad=True)
    value = coarse_term(logits, targets_of(sets))
    torch.testing.assert_close(float(value), 2 / 3 * math.log(2))
    value.backward()
    assert logits.grad is not None
    known = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0] * 5, [0] * 5]
    assert (logits.grad[0, :, 0].T != 0).int().tolist() == known


def test_the_documents_losses_for_fully_known_or_uncertain_voxels() -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(-1, 12, (2, 6, 7), generator=generator)
    sets = torch.where(labels < 0, UNKNOWN, 1 << labels.clamp_min(0)).int()
    batch = {
        "image": torch.zeros((2, 1, 6, 7)),
        "class_sets": sets,
        "instance": torch.full_like(labels, -1),
        "voxel_size_nm": torch.ones((2, 3)),
    }
    targets = prepare_targets(batch, HIERARCHY, LOSS)
    fine, coarse = (torch.randn((2, c, 6, 7), generator=generator) for c in (12, 5))
    valid = labels >= 0
    bits = torch.from_numpy(HIERARCHY.coarse_lut)[labels.clamp_min(0)].movedim(-1, 1)
    bce = F.binary_cross_entropy_with_logits(coarse, bits, reduction="none").mean(1)
    torch.testing.assert_close(coarse_term(coarse, targets), (bce * valid).sum() / valid.sum())
    ce = F.cross_entropy(fine, labels, ignore_index=-1, reduction="none")
    torch.testing.assert_close(
        fine_terms(fine, targets, False)[0], (ce * valid).sum() / valid.sum()
    )


def test_large_logits_stay_finite() -> None:
    logits = logits_of([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    ce, _, _ = fine_terms(logits, targets_of([0b110, 0b1]), overlap=False)
    ce.backward()
    assert float(ce) == (1e4 + 2e4) / 2
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_gradients_by_finite_differences() -> None:
    batch = random_batch(1, shape=(3, 4), batch=2, spacing=(4.0, 4.0, 1.0), objects=2)
    targets = prepare_targets(batch, HIERARCHY, LOSS)
    outputs = random_outputs(1, batch)
    assert torch.autograd.gradcheck(
        lambda x: tuple(t for t in fine_terms(x, targets, True) if t is not None),
        outputs["semantic"],
    )
    assert torch.autograd.gradcheck(lambda x: coarse_term(x, targets), outputs["coarse"])


def test_overlap_also_counts_where_a_class_is_known_to_be_absent() -> None:
    # Voxel 0 is class 0; voxel 1 is anything but class 0, p(0) = 1/2 there.
    logits = logits_of([[0.0, -1e4], [0.0, 0.0]])
    targets = targets_of([0b1, UNKNOWN & ~0b1])
    _, iou, dice = fine_terms(logits, targets, overlap=True, excluded=True)
    assert iou is not None and dice is not None
    torch.testing.assert_close(float(iou), 1 - 1 / 1.5)
    torch.testing.assert_close(float(dice), 1 - 2 / 2.5)
    dice.backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 0, 0, 1]) > 0 > float(logits.grad[0, 1, 0, 1])
