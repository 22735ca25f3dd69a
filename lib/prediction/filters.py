"""Cheap filter responses of an image, for heads that learn beside the network's features.

A membrane is a voxel or two wide; a backbone that shares its features between all tasks hands
little of it on, and where it has never seen such an image it says little of faint or inverted
boundaries. Filters say the same of every image. Scales are lengths in nm, at least what the voxels
resolve. In thick sections filters work within each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lib.networks.model import NeuropilNet
from lib.networks.study_heads import StudyHeads
from lib.prediction.boundary import has_thick_sections
from lib.volumes.boxes import Box, Triple, box_slices, minus, shift_box
from lib.volumes.crop import widen

SCALES_NM = (10.0, 20.0, 40.0)
LEAST_SIGMA = (0.7, 1.4, 2.8)
"""Of each scale, in voxels of the finest axis: coarser images are filtered by what they resolve."""
REACH = 3.0
"""Standard deviations after which a kernel ends."""
EACH = 6
COUNT = EACH * len(SCALES_NM)
"""Responses of a voxel: at each scale the mean, the gradient's magnitude, the largest and smallest
curvature, and how steep the image is around along its steepest and its flattest direction."""


def filter_responses(
    image: NDArray[np.float32], voxel_size_nm: Sequence[float], part: Box | None = None
) -> NDArray[np.float32]:
    """Responses of a part of an image, which depend on what lies within `filter_halo` of it.

    Args:
        image: (X, Y, Z) normalised.
        voxel_size_nm: (x, y, z).
        part: of the image; None: all of it.

    Returns:
        (COUNT, *part), of the order of 1; mirrored images have mirrored responses.

    Source: Lindeberg 1998 (derivatives that grow with the scale, to be alike); Arganda-Carreras
        et al. 2017 (segmentation by such filters).
    """
    x, y, z = (slice(None),) * 3 if part is None else box_slices(part)
    flat = image.shape[2] == 1 or has_thick_sections(voxel_size_nm)
    axes = (1, 2) if flat else (1, 2, 3)
    whole = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
    eigenvalues = _eigenvalues_2 if flat else _eigenvalues_3
    out: list[Tensor] = []
    for sigma in _sigmas(voxel_size_nm):
        smooth = whole
        for axis in axes:
            smooth = _smoothed(smooth, axis, sigma[axis - 1])
        # one voxel of each axis, as a share of the scale
        first = {axis: _slope(smooth, axis).mul_(sigma[axis - 1]) for axis in axes}
        bent, tensor = {}, {}
        for a, b in itertools.combinations_with_replacement(axes, 2):
            bent[a, b] = (
                _slope(first[a], b).mul_(sigma[b - 1])
                if a != b
                else _bend(smooth, a).mul_(sigma[a - 1] ** 2)
            )
            product = first[a] * first[b]
            for axis in axes:
                product = _smoothed(product, axis, sigma[axis - 1])
            tensor[a, b] = product
        steep = sum((d * d for d in first.values()), torch.zeros_like(smooth)).sqrt_()
        around = [values.clamp_(min=0.0).sqrt_() for values in eigenvalues(tensor)]
        found = (smooth, steep, *eigenvalues(bent), *around)
        out += [values[0, x, y, z] for values in found]
    return torch.stack(out).numpy()


def responses_at(
    voxels: Callable[[Box], NDArray[np.float32]],
    shape: Triple,
    box: Box,
    voxel_size_nm: Sequence[float],
) -> NDArray[np.float32]:
    """(COUNT, *box) responses of a box of a volume, the same whatever the boxes are.

    Args:
        voxels: gives the normalised image of a box.
        shape: of the volume.
    """
    wide = widen(box, filter_halo(voxel_size_nm), shape)
    inner = shift_box(box, minus((wide[0][0], wide[1][0], wide[2][0])))
    return filter_responses(voxels(wide), voxel_size_nm, inner)


def sees_responses(study: nn.Module | None) -> bool:
    """Whether study heads see filter responses beside the features."""
    return isinstance(study, StudyHeads) and study.beside > 0


def beside_of(net: NeuropilNet, image: Tensor, voxel_size_nm: Tensor) -> Tensor | None:
    """What a network's study heads see of images beside its features.

    Args:
        net: the network.
        image: (B, 1, *S) normalised.
        voxel_size_nm: (B, S).

    Returns:
        (B, *S, COUNT); None where there are no such heads.
    """
    if not sees_responses(net.task_heads.study):
        return None
    flat = net.spatial_dims == 2
    found = []
    for each, size in zip(image[:, 0].float().cpu().numpy(), voxel_size_nm.tolist(), strict=True):
        volume, nm = (each[..., None], [*size, size[0]]) if flat else (each, size)
        found.append(torch.from_numpy(filter_responses(volume, nm)).movedim(0, -1))
    made = torch.stack(found).to(image.device)
    return made.squeeze(-2) if flat else made


def filter_halo(voxel_size_nm: Sequence[float]) -> Triple:
    """Voxels around a box on which its responses depend."""
    thick = has_thick_sections(voxel_size_nm)
    spread = [max(s) for s in zip(*_sigmas(voxel_size_nm), strict=True)]
    halo = [2 * math.ceil(REACH * s) + 2 for s in spread]  # tensors are smoothed twice
    return halo[0], halo[1], 0 if thick else halo[2]


def _sigmas(voxel_size_nm: Sequence[float]) -> list[list[float]]:
    """Standard deviations along each axis in voxels, by scale."""
    finest = min(voxel_size_nm)
    return [
        [max(scale / finest, least) * finest / v for v in voxel_size_nm]
        for scale, least in zip(SCALES_NM, LEAST_SIGMA, strict=True)
    ]


def _smoothed(values: Tensor, axis: int, sigma: float) -> Tensor:
    """A Gaussian along one axis; beyond the ends the last value goes on."""
    reach = max(1, math.ceil(REACH * sigma))
    bell = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    wide = _widened(values, axis, reach)
    length = values.shape[axis]
    out = torch.zeros_like(values)
    for step, weight in enumerate(bell):
        out.add_(wide.narrow(axis, step, length), alpha=weight / sum(bell))
    return out


def _slope(values: Tensor, axis: int) -> Tensor:
    """First derivative along an axis, a voxel."""
    wide, length = _widened(values, axis, 1), values.shape[axis]
    return (wide.narrow(axis, 2, length) - wide.narrow(axis, 0, length)).mul_(0.5)


def _bend(values: Tensor, axis: int) -> Tensor:
    """Second derivative along an axis, a squared voxel."""
    wide, length = _widened(values, axis, 1), values.shape[axis]
    outer = wide.narrow(axis, 2, length) + wide.narrow(axis, 0, length)
    return outer.sub_(values, alpha=2.0)


def _widened(values: Tensor, axis: int, reach: int) -> Tensor:
    """(B, x, y, z) with the values at the ends of an axis repeated."""
    pad = [0, 0] * 3
    place = 2 * (3 - axis)
    pad[place] = pad[place + 1] = reach
    return functional.pad(values[:, None], pad, mode="replicate")[:, 0]


Symmetric = dict[tuple[int, int], Tensor]
"""Components of symmetric matrices by their axes (a, b), a <= b."""


def _eigenvalues_2(h: Symmetric) -> tuple[Tensor, Tensor]:
    """The larger and the smaller of symmetric 2 x 2 matrices."""
    middle = (h[1, 1] + h[2, 2]) / 2
    apart = torch.hypot((h[1, 1] - h[2, 2]) / 2, h[1, 2])
    return middle + apart, middle - apart


def _eigenvalues_3(h: Symmetric) -> tuple[Tensor, Tensor]:
    """The largest and the smallest of symmetric 3 x 3 matrices.

    Source: Smith 1961 (eigenvalues of a symmetric 3 x 3 matrix).
    """
    a, b, c = (h[i, i] for i in (1, 2, 3))
    d, e, f = h[1, 2], h[1, 3], h[2, 3]
    middle = (a + b + c) / 3
    a, b, c = a - middle, b - middle, c - middle
    spread = ((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6).sqrt_()
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    ratio = determinant / (2 * spread**3).clamp_(min=1e-30)
    angle = ratio.clamp_(-1.0, 1.0).acos_() / 3
    largest = middle + 2 * spread * angle.cos()
    least = middle + 2 * spread * (angle + 2 * math.pi / 3).cos()
    return largest, least
