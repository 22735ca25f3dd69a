"""Compute the scores of one volume: one pass of the network, sums over regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.classes import class_probabilities
from lib.prediction.dense import DensePass
from lib.prediction.features import use_bfloat16
from lib.prediction.forward import View
from lib.prompts.points import PointPrompts
from lib.queries.regions import RegionGrid
from lib.queries.scores import ItemScores
from lib.volumes.boxes import Box, Triple
from lib.volumes.contrast import LazyImage
from lib.volumes.frames import ViewerFrame, viewer_frame

Progress = Callable[[int, int], None]

HEAT_CELLS = 2_000_000
"""Most cells of a stored heat map."""

PROMPTS_PER_WINDOW = 8


def score_volume(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    settings: Settings,
    hierarchy: LabelHierarchy,
    *,
    weights: str = "",
    image: str = "",
    prompted: bool | None = None,
    progress: Progress | None = None,
) -> ItemScores:
    """Score all regions of a volume.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) as stored; its sections may lie along any axis.
        voxel_size_nm: (x, y, z) of the volume.
        settings: of the network; and `inference` (window, precision), `queries` (region).
        hierarchy: of the network.
        weights, image: versions to store with the scores.
        prompted: compare automatic with prompted classes; None: where the settings say that
            the network was trained in proofread mode.
        progress: called with (windows done, windows in all); what it raises stops the run.

    Returns:
        The scores, in the axes of `volume` as stored.
    """
    model = settings.model
    frame = viewer_frame(volume.shape, voxel_size_nm, model.finest_nm, model.most_split)
    turned = frame.view(volume)
    if prompted is None:
        prompted = "proofread" in settings.training.training_modes
    x, y, z = (n // m for n, m in zip(turned.shape, frame.splits, strict=True))
    whole = (x, y, z)  # regions hold whole voxels of the image, however the network splits them
    grid, heat_grid = (
        _scaled(RegionGrid.of(whole, size), frame.splits)
        for size in (settings.queries.region, heat_cell(whole))
    )
    sums = _Sums(grid, heat_grid, hierarchy)
    predict = _Predict(net, settings, prompted, torch.Generator().manual_seed(0))
    channels = hierarchy.num_classes + hierarchy.num_groups + net.feature_channels + 1
    heads = ("semantic", "coarse")
    dense = DensePass(
        net,
        turned,
        frame.network_voxel_size_nm,
        settings.inference,
        heads,
        overlap=0.0,
        mirror=False,
    )
    dense.run(predict, sums.add, channels, progress=progress)
    scores = sums.result(weights, image, settings.queries.region, has_prompted=prompted)
    return _in_stored_axes(scores, frame)


def _scaled(grid: RegionGrid, splits: Triple) -> RegionGrid:
    """The same regions in voxels so many times finer along each axis."""
    x, y, z = (edges * m for edges, m in zip(grid.edges, splits, strict=True))
    return RegionGrid((x, y, z))


def heat_cell(shape: Triple) -> Triple:
    """The size of a heat map's cell: single sections, square in them, few enough in all."""
    side = 4
    while math.prod(shape) / side**2 > HEAT_CELLS:
        side *= 2
    return side, side, 1


class _Predict:
    """Windows to class and group probabilities, features and prompted disagreement."""

    def __init__(
        self, net: NeuropilNet, settings: Settings, prompted: bool, generator: torch.Generator
    ) -> None:
        self.net, self.settings, self.prompted = net, settings, prompted
        self.generator = generator

    def __call__(self, view: View) -> dict[str, Tensor]:
        out = {**class_probabilities(view), "features": view.features.float()}
        if self.prompted:
            out["prompted"] = self._disagreement(view.features, view.beside, out["semantic"])
        return out

    def _disagreement(self, features: Tensor, beside: Tensor | None, fine: Tensor) -> Tensor:
        """(B, 1, x, y, z) how much the classes change with prompts that agree with them."""
        if flat := self.net.spatial_dims == 2:
            features, fine = features.squeeze(-1), fine.squeeze(-1)
            beside = None if beside is None else beside.squeeze(-2)
        device = features.device
        half = use_bfloat16(self.settings.inference.precision, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            prompts = self._prompts(fine)
            again = self.net.prompted(features, prompts, ("semantic",), beside)["semantic"]
        found = _divergence(fine, again.float().softmax(1)).unsqueeze(1)
        return found.unsqueeze(-1) if flat else found

    def _prompts(self, fine: Tensor) -> PointPrompts:
        """Random points that say what the automatic mode says: a sure network stays as it is."""
        size = torch.tensor(fine.shape[2:])
        shape = (fine.shape[0], PROMPTS_PER_WINDOW)
        at = (torch.rand((*shape, len(size)), generator=self.generator) * size).long()
        guess = fine.argmax(1).cpu()
        classes = torch.stack([g[tuple(points.T)] for g, points in zip(guess, at, strict=True)])
        device = fine.device
        return PointPrompts(
            at.to(device),
            torch.ones(shape, dtype=torch.long, device=device),
            classes.to(device),
            torch.zeros(shape, dtype=torch.bool, device=device),
        )


class _Sums:
    """Adds up blended outputs over regions and over the cells of the heat maps."""

    def __init__(self, grid: RegionGrid, heat_grid: RegionGrid, hierarchy: LabelHierarchy) -> None:
        self.grid, self.heat_grid, self.hierarchy = grid, heat_grid, hierarchy
        self.rows: dict[str, NDArray[np.float64]] = {}
        self.heat = np.zeros((2, heat_grid.count))

    def add(self, box: Box, outputs: Mapping[str, Tensor]) -> None:
        fine = outputs["semantic"]
        entropy = _entropy(fine)
        disagree = torch.zeros_like(entropy)
        if "coarse" in outputs:
            lut = torch.from_numpy(self.hierarchy.coarse_lut).to(fine)
            disagree = _group_divergence(
                torch.einsum("cxyz,ck->kxyz", fine, lut), outputs["coarse"]
            )
        guess = torch.nn.functional.one_hot(fine.argmax(0), fine.shape[0]).movedim(-1, 0)
        maps = {
            "entropy": entropy[None],
            "disagreement": disagree[None],
            "prompted": outputs.get("prompted", torch.zeros_like(entropy)[None]),
            "class_share": guess.float(),
            "class_entropy": guess * entropy,
            "features": outputs["features"],
        }
        for name, values in maps.items():
            add = self.grid.sums(values.cpu().numpy(), box)
            self.rows[name] = self.rows[name] + add if name in self.rows else add
        both = torch.stack([entropy, disagree]).cpu().numpy()
        self.heat += self.heat_grid.sums(both, box)

    def result(self, weights: str, image: str, region: Triple, has_prompted: bool) -> ItemScores:
        mean = {n: (r / self.grid.voxels).astype(np.float32) for n, r in self.rows.items()}
        prompted = mean["prompted"][0] if has_prompted else np.full(self.grid.count, np.nan)
        heat = np.rint(100.0 * self.heat / self.heat_grid.voxels).clip(0, 100).astype(np.uint8)
        return ItemScores(
            weights, image, region, self.grid, mean["entropy"][0], mean["disagreement"][0],
            prompted.astype(np.float32), mean["class_entropy"].T, mean["class_share"].T,
            mean["features"].T, heat.reshape(2, *self.heat_grid.cells), self.heat_grid,
        )  # fmt: skip


def _entropy(fine: Tensor) -> Tensor:
    """(C, *S) probabilities -> (*S) entropy as a share of its largest value."""
    classes = fine.shape[0]
    return -(fine * fine.clamp_min(1e-8).log()).sum(0) / math.log(max(classes, 2))


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon divergence of (B, C, *S) distributions, 0..1."""
    one, other = one.clamp(0, 1), other.clamp(0, 1)  # blending may overshoot by rounding
    middle = 0.5 * (one + other)
    total = torch.zeros_like(one[:, 0])
    for p in (one, other):
        total += 0.5 * (p * ((p + 1e-8) / (middle + 1e-8)).log()).sum(1)
    return (total / math.log(2)).clamp(0, 1)


def _group_divergence(from_fine: Tensor, coarse: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of the groups' (K, *S) yes/no probabilities, 0..1."""
    one = torch.stack([from_fine, 1 - from_fine], 1)
    other = torch.stack([coarse, 1 - coarse], 1)
    return _divergence(one, other).mean(0)


def _in_stored_axes(scores: ItemScores, frame: ViewerFrame) -> ItemScores:
    """Scores of a volume in the network's frame, for the volume as stored."""
    back = [frame.order.index(a) for a in range(3)]
    order = np.arange(scores.grid.count).reshape(scores.grid.cells).transpose(back).reshape(-1)

    def turn(grid: RegionGrid) -> RegionGrid:
        x, y, z = (
            np.minimum(grid.edges[b] // frame.splits[b] * frame.bins[b], frame.shape[a])
            for a, b in enumerate(back)
        )
        return RegionGrid((x, y, z))

    return ItemScores(
        scores.weights, scores.image, scores.region, turn(scores.grid), scores.entropy[order],
        scores.disagreement[order], scores.prompted[order], scores.class_entropy[order],
        scores.class_share[order], scores.features[order],
        scores.heat.transpose(0, *(b + 1 for b in back)), turn(scores.heat_grid),
    )  # fmt: skip
