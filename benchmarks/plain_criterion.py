"""The criterion and its targets written plainly: one object at a time, one class at a time.

What lib/targets and lib/losses must equal, in values and gradients, and what the benchmark
compares their speed with. Follows the definitions in the order they are written down; shares
no code with them. Works in the precision of its inputs (float64 in the tests).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lib.configs.settings import LossSettings
from lib.labels.hierarchy import LabelHierarchy

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def object_ids(instance: Ids) -> list[int]:
    """The ids > 0 of a patch, ascending."""
    return [int(i) for i in np.unique(instance) if i > 0]


def edge_weight(instance: Ids, weight: float) -> Floats:
    """`weight` where a voxel's neighbourhood holds another known id, else 1."""
    out = np.ones(instance.shape)
    box = np.ones((3,) * instance.ndim, bool)
    for k in object_ids(instance):
        others = (instance >= 0) & (instance != k)
        out[(instance == k) & ndimage.binary_dilation(others, box)] = weight
    return out


def distance(instance: Ids, spacing: tuple[float, ...], k: int) -> Floats:
    """Distance of every voxel to the nearest voxel known not to be in object k."""
    others = (instance >= 0) & (instance != k)
    if not others.any():
        return np.full(instance.shape, np.inf)
    found: Floats = ndimage.distance_transform_edt(~others, sampling=spacing)
    return found


def depth(instance: Ids, spacing: tuple[float, ...], k: int) -> Floats:
    """d / max d inside object k; 0 outside and without any boundary."""
    d, mask = distance(instance, spacing, k), instance == k
    return np.where(mask, d / d[mask].max(), 0.0) if np.isfinite(d).all() else np.zeros(d.shape)


def bone_weight(instance: Ids, spacing: tuple[float, ...], weight: float) -> Floats:
    """1 + (weight - 1) d / max d, object by object."""
    out = np.ones(instance.shape)
    for k in object_ids(instance):
        out += (weight - 1) * depth(instance, spacing, k)
    return out


def direction(instance: Ids, spacing: tuple[float, ...]) -> Floats:
    """(S, *S) unit vectors to the centroid of each object."""
    out = np.zeros((instance.ndim, *instance.shape))
    for k in object_ids(instance):
        place = np.argwhere(instance == k)
        vector = (place.mean(0) - place) * spacing
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        unit = np.divide(vector, length, out=np.zeros_like(vector), where=length > 0)
        out[(slice(None), *place.T)] = unit.T
    return out


def tensor(
    instance: Ids, spacing: tuple[float, ...], sigma_nm: float, truncate: float = 4.0
) -> Floats:
    """(S * S, *S) structure tensors of each object's distance transform.

    The Gaussian ends at `truncate` standard deviations.
    """
    dims = instance.ndim
    out = np.zeros((dims, dims, *instance.shape))
    for k in object_ids(instance):
        mask = instance == k
        d = np.where(mask, distance(instance, spacing, k), 0.0)
        g = unit_gradient(np.where(np.isfinite(d), d, 0.0), instance, mask, spacing)
        sigma = [sigma_nm / s for s in spacing]
        j = np.zeros((dims, dims, *instance.shape))
        for a, b in itertools.product(range(dims), repeat=2):
            j[a, b] = ndimage.gaussian_filter(
                g[a] * g[b], sigma, mode="constant", truncate=truncate
            )
        trace = np.trace(j)
        shape = np.divide(j, trace, out=np.zeros_like(j), where=trace > 0)
        t = np.where(trace > 0, depth(instance, spacing, k), 1.0)
        identity = np.eye(dims).reshape(dims, dims, *[1] * dims) / dims
        out += np.where(mask, (1 - t) * shape + t * identity, 0.0)
    return out.reshape(dims * dims, *instance.shape)


def unit_gradient(
    d: Floats, instance: Ids, mask: NDArray[np.bool_], spacing: tuple[float, ...]
) -> Floats:
    """Central differences inside the object, one-sided beside unknown and the patch border."""
    g = np.zeros((d.ndim, *d.shape))
    values = np.where(instance >= 0, d, np.nan)
    for axis, step in enumerate(spacing):
        padded = np.pad(values, 1, constant_values=np.nan)
        core = tuple(slice(1, -1) for _ in range(d.ndim))
        after, before = (np.roll(padded, shift, axis)[core] for shift in (-1, 1))
        both = (after - before) / (2 * step)
        one_sided = np.where(np.isnan(after), (d - before) / step, (after - d) / step)
        g[axis] = np.nan_to_num(np.where(np.isnan(both), one_sided, both))
    length = np.linalg.norm(g, axis=0)
    return np.divide(g, length, out=np.zeros_like(g), where=(length > 0) & mask)


def resolved(batch: Mapping[str, Any], hierarchy: LabelHierarchy) -> Tensor:
    """Class sets, with instance ids used where the class is unknown."""
    sets: Tensor = batch["class_sets"].clone()
    instance = batch["instance"]
    unknown = sets == hierarchy.unknown
    sets[unknown & (instance > 0)] = hierarchy.object_set
    if hierarchy.num_classes == 2 and hierarchy.num_groups == 0:
        sets[unknown & (instance == 0)] = 1
    return sets


def semantic_terms(
    logits: Tensor, coarse: Tensor, sets: Tensor, hierarchy: LabelHierarchy
) -> dict[str, Tensor]:
    """ce, iou, dice and coarse."""
    p = torch.softmax(logits, 1)
    known = sets != hierarchy.unknown
    valid = known.sum().clamp_min(1)
    members = [(sets >> c & 1).to(p.dtype) for c in range(hierarchy.num_classes)]
    inside = torch.stack([m * p[:, c] for c, m in enumerate(members)]).sum(0)
    single = known & (torch.stack(members).sum(0) == 1)
    iou, dice = [], []
    for c in range(hierarchy.num_classes):
        truth = single & (sets == 1 << c)
        if truth.any():
            both, q, t = p[:, c][truth].sum(), p[:, c][single].sum(), truth.sum()
            iou.append(1 - both / (q + t - both))
            dice.append(1 - 2 * both / (q + t))
    zero = logits.new_zeros(())
    return {
        "ce": -torch.log(inside[known]).sum() / valid,
        "iou": torch.stack(iou).mean() if iou else zero,
        "dice": torch.stack(dice).mean() if dice else zero,
        "coarse": _coarse(coarse, sets, hierarchy, known) / valid,
    }


def _coarse(coarse: Tensor, sets: Tensor, hierarchy: LabelHierarchy, known: Tensor) -> Tensor:
    total, bits = torch.zeros_like(coarse[:, 0]), torch.zeros_like(coarse[:, 0])
    for k, group in enumerate(hierarchy.group_sets):
        yes, no = (sets & ~group) == 0, (sets & group) == 0
        q = torch.sigmoid(coarse[:, k])
        bce = torch.where(yes, -torch.log(q), -torch.log1p(-q))
        counts = known & (yes | no)
        total = total + torch.where(counts, bce, 0.0)
        bits = bits + counts
    mean = torch.where(bits > 0, total / bits.clamp_min(1), 0.0)
    return mean.sum()


def instance_terms(
    embedding: Tensor,
    instance: Tensor,
    weight: Tensor,
    loss: LossSettings,
    classes: Tensor | None = None,
) -> dict[str, Tensor]:
    """pull, push and norm: for each class, sample, object and pair."""
    present = [0]
    if classes is not None:
        present = sorted(set(classes[instance > 0].tolist()))
    runs = []
    for c in present:
        kept = instance if classes is None else torch.where(classes == c, instance, 0)
        if terms := _one_class(embedding, kept, weight, loss):
            runs.append(terms)
    zero = (embedding * 0).sum()
    names = ("pull", "push", "norm")
    return {n: torch.stack([r[n] for r in runs]).mean() if runs else zero for n in names}


def _one_class(
    embedding: Tensor, instance: Tensor, weight: Tensor, loss: LossSettings
) -> dict[str, Tensor]:
    samples = []
    for b in range(instance.shape[0]):
        mus, pulls = [], []
        for k in object_ids(instance[b].numpy()):
            mask = instance[b] == k
            e, w = embedding[b][:, mask], weight[b][mask]
            mu = e.mean(1)
            h = torch.relu((e - mu[:, None]).norm(dim=0) - loss.delta_v) ** 2
            mus.append(mu)
            pulls.append((w * h).sum() / w.sum())
        if not mus:
            continue
        pairs = [
            torch.relu(2 * loss.delta_d - (a - b).norm()) ** 2
            for a, b in itertools.combinations(mus, 2)
        ]
        samples.append(
            {
                "pull": torch.stack(pulls).mean(),
                "push": torch.stack(pairs).mean() if pairs else (embedding * 0).sum(),
                "norm": torch.stack(mus).norm(dim=1).mean(),
            }
        )
    if not samples:
        return {}
    return {n: torch.stack([s[n] for s in samples]).mean() for n in ("pull", "push", "norm")}


def geometry_terms(
    geometry: Tensor,
    image: Tensor,
    foreground: Tensor,
    raw_region: Tensor,
    directions: Tensor,
    tensors: Tensor,
) -> dict[str, Tensor]:
    """dir, cov and raw: squared errors over the region's voxels and channels."""
    dims = geometry.ndim - 2
    groups = torch.split(geometry, [dims, dims * dims, 4], dim=1)
    rgba = torch.cat([image, image, image, foreground.unsqueeze(1).to(image.dtype)], 1)
    cases = {
        "dir": (groups[0], directions, foreground),
        "cov": (groups[1], tensors, foreground),
        "raw": (torch.sigmoid(groups[2]), rgba, raw_region),
    }
    terms = {}
    for name, (predicted, target, region) in cases.items():
        error = (predicted - target) ** 2
        kept = error.movedim(1, -1)[region]
        terms[name] = kept.mean() if kept.numel() else kept.sum()
    return terms
