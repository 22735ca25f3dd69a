"""All training targets of a batch, derived once and used by both training modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lib.configs.settings import LossSettings
from lib.labels.class_sets import coarse_targets, fine_labels, known_mask, set_members
from lib.labels.hierarchy import LabelHierarchy
from lib.targets.cells import cell_ids, pair_targets
from lib.targets.direction import centroid_direction
from lib.targets.distance import object_distance, relative_distance
from lib.targets.objects import Objects, index_objects
from lib.targets.processes import shared_count
from lib.targets.semantic import object_classes, paint_objects, resolve_class_sets
from lib.targets.structure_tensor import structure_tensors
from lib.targets.weights import pull_weights


@dataclass(frozen=True)
class Targets:
    """What the criterion compares a batch's predictions with.

    A field of a term whose weight is zero is None: it was not computed.

    Args:
        class_sets: (B, *S) int32 bit masks, instance ids used where classes are unknown.
        known: (B, *S) bool, where anything is known of the class (the spec's valid_mask).
        fine: (B, *S) int64, the class where it is known to one class, else -1.
        coarse: (B, K, *S) bool, the coarse bits.
        coarse_known: (B, K, *S) bool, where a coarse bit is known.
        instance: (B, *S) int64, 0 none, -1 unknown, objects 1.. over the whole batch.
        foreground: (B, *S) bool, known voxels with an object.
        objects: the objects as index lists.
        object_class: (K,) int64, the class of each object, -1 unknown.
        weight: (B, *S) float32, edge times bone weight, 0 outside of objects.
        direction: (B, S, *S) float32 unit vectors, 0 outside of objects.
        tensor: (B, S * S, *S) float32, 0 outside of objects.
        image: (B, 1, *S) float32 in [0, 1].
        raw_region: (B, *S) bool, where L_raw counts.
        voxel_size_nm: (B, S) float32.
        pairs: (B, A, *S) int8, what is known of pairs of voxels (lib/targets/cells.py).
        hierarchy: the classes all this is about.
    """

    class_sets: Tensor
    known: Tensor
    fine: Tensor
    coarse: Tensor
    coarse_known: Tensor
    instance: Tensor
    foreground: Tensor
    objects: Objects
    object_class: Tensor
    weight: Tensor | None
    direction: Tensor | None
    tensor: Tensor | None
    image: Tensor
    raw_region: Tensor | None
    voxel_size_nm: Tensor
    pairs: Tensor | None
    hierarchy: LabelHierarchy

    @cached_property
    def semantic_ids(self) -> Tensor:
        """(B, *S) int64: the class of the voxel's object, -1 where it or the class is unknown.

        Passed through the network in fractionary passes, it makes the instance loss run for
        each class by itself.
        """
        return paint_objects(self.object_class, self.objects.labels)

    @cached_property
    def known_count(self) -> Tensor:
        """Scalar float64: known voxels of the batch, at least 1 (see lib/targets/processes.py)."""
        return shared_count(self.known.sum())

    @cached_property
    def coarse_weight(self) -> Tensor:
        """(B, K, *S) float32: each coarse bit's weight in the mean of the batch.

        1 / (known bits of the voxel) / (known voxels of the batch); 0 where not known.
        """
        bits = self.coarse_known.sum(1, keepdim=True).clamp_min(1)
        return self.coarse_known / (bits * self.known_count).float()

    @cached_property
    def set_voxels(self) -> Tensor:
        """(M,) int64 flat indices of voxels known to a set of several classes."""
        return (self.known & (self.fine < 0)).flatten().nonzero().flatten()

    @cached_property
    def set_outside(self) -> Tensor:
        """(C, M) bool: the classes that a voxel of `set_voxels` is known not to be."""
        sets = self.class_sets.flatten()[self.set_voxels].unsqueeze(0)
        return ~set_members(sets, self.hierarchy.num_classes)[0]

    @cached_property
    def largest_weight(self) -> Tensor:
        """Scalar: the largest edge times bone weight of the batch, for the log."""
        if self.weight is None or self.weight.numel() == 0:
            return torch.zeros((), device=self.known.device)
        return self.weight.amax()


def prepare_targets(
    batch: Mapping[str, Any], hierarchy: LabelHierarchy, loss: LossSettings
) -> Targets:
    """Derive every target that the weights of `loss` ask for.

    Args:
        batch: "image" (B, 1, *S) float in [0, 1]; "class_sets" (B, *S) int32 bit masks;
            "instance" (B, *S) int64 ids (any size), 0 none, negative unknown;
            "voxel_size_nm" (B, 3) or (B, S); optionally "skeleton" (B, *S) bool, cached
            skeleton voxels for `dir_target: skeleton`, and "section_ids" (B, *S) int64 with
            "within_sections" (B,) bool, see lib/data/batches.py. 2D (S = 2) or 3D.

    Returns:
        Targets on the batch's device.

    Raises:
        ValueError: label maps whose shape differs from the image's.
    """
    _check_shapes(batch)
    with torch.no_grad(), torch.autocast(batch["image"].device.type, enabled=False):
        return _derive(batch, hierarchy, loss)


def _derive(batch: Mapping[str, Any], hierarchy: LabelHierarchy, loss: LossSettings) -> Targets:
    image, instance = batch["image"], batch["instance"].to(torch.int64)
    dims = instance.ndim - 1
    voxel_size = batch["voxel_size_nm"][:, :dims].to(instance.device)
    class_sets = resolve_class_sets(batch["class_sets"], instance, hierarchy)
    known, fine = known_mask(class_sets, hierarchy), fine_labels(class_sets, hierarchy)
    coarse, coarse_known = coarse_targets(class_sets, hierarchy)
    objects = index_objects(instance)
    compact = torch.where(instance < 0, -1, objects.labels)
    weight, direction, tensor = _shape_targets(
        compact, objects, voxel_size, loss, batch.get("skeleton")
    )
    raw = loss.weight_geometry > 0 and loss.weight_raw > 0
    pairs = None
    if loss.weight_affinity > 0:
        pairs = _pairs(batch, class_sets, fine, voxel_size, hierarchy)
    return Targets(
        class_sets=class_sets,
        known=known,
        fine=fine,
        coarse=coarse,
        coarse_known=coarse_known,
        instance=compact,
        foreground=compact > 0,
        objects=objects,
        object_class=object_classes(fine, objects, hierarchy.num_classes),
        weight=weight,
        direction=direction,
        tensor=tensor,
        image=image.to(torch.float32),
        raw_region=_raw_region(compact, known, loss) if raw else None,
        voxel_size_nm=voxel_size,
        pairs=pairs,
        hierarchy=hierarchy,
    )


def _pairs(
    batch: Mapping[str, Any],
    class_sets: Tensor,
    fine: Tensor,
    voxel_size: Tensor,
    hierarchy: LabelHierarchy,
) -> Tensor:
    """Pair targets, by ids that may hold within sections only where the batch has such."""
    ids = batch.get("section_ids", batch["instance"]).to(torch.int64)
    objects = index_objects(ids)
    classes = object_classes(fine, objects, hierarchy.num_classes)
    cells = cell_ids(ids, objects, classes, class_sets, hierarchy)
    return pair_targets(cells, class_sets, voxel_size, hierarchy, batch.get("within_sections"))


def _shape_targets(
    instance: Tensor,
    objects: Objects,
    voxel_size: Tensor,
    loss: LossSettings,
    skeleton: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Pull weight, direction and structure tensor; None where their weight is zero."""
    pull = loss.weight_instance > 0 and loss.weight_pull > 0
    cov = loss.weight_geometry > 0 and loss.weight_cov > 0
    wants_direction = loss.weight_geometry > 0 and loss.weight_dir > 0
    along_skeleton = wants_direction and loss.dir_target == "skeleton"
    depth = distance = weight = direction = tensor = None
    unknown = instance < 0
    if cov or along_skeleton or (pull and loss.weight_bone != 1.0):
        distance = object_distance(objects.labels, unknown, voxel_size)
        depth = relative_distance(distance, objects.labels, objects.count)
    if pull:
        weight = pull_weights(instance, depth, loss.weight_edge, loss.weight_bone)
    if along_skeleton:
        from lib.targets.skeleton import skeleton_direction

        assert depth is not None
        direction = skeleton_direction(objects.labels, depth, voxel_size, skeleton)
    elif wants_direction:
        direction = centroid_direction(objects, voxel_size)
    if cov:
        assert distance is not None and depth is not None
        tensor = structure_tensors(
            distance, depth, objects.labels, unknown, objects.count, voxel_size, loss.cov_sigma_nm
        )
    return weight, direction, tensor


def _raw_region(instance: Tensor, known: Tensor, loss: LossSettings) -> Tensor:
    """Where RGBA counts: on objects, or wherever both class and object are known."""
    foreground = instance > 0
    if loss.raw_region == "foreground":
        return foreground
    return foreground | (known & (instance >= 0))


def _check_shapes(batch: Mapping[str, Any]) -> None:
    image = batch["image"]
    expected = (image.shape[0], *image.shape[2:])
    for key in ("class_sets", "instance"):
        if tuple(batch[key].shape) != expected:
            raise ValueError(
                f"{key}: expected shape {expected} as the image's, found "
                f"{tuple(batch[key].shape)}; crop image and labels to the same box"
            )
