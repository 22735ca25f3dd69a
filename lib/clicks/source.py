"""What a click works on: the network, an image, what stands of its objects, and the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.classes import FINE_VALUE
from lib.prediction.feature_cache import ClassMap, FeatureCache, WindowFeatures, WindowKey
from lib.prediction.features import FeatureSource, Precision, Shelf, use_bfloat16
from lib.prediction.filters import sees_responses
from lib.prediction.joining import PLAIN, JoinModel
from lib.prediction.objects import Fragments
from lib.volumes.boxes import Box, Triple, box_shape, box_slices
from lib.volumes.contrast import LazyImage, intensity_window, normalize

Kind = Literal["cell", "organelle", "auto"]
"""What points on an organelle mean: the cell around it; the organelle; or what the first point
lies on, while no other speaks against it."""

Kept = tuple[str, Callable[[], Fragments | None]]
"""A version, and what reads the fragments of the whole image."""


@dataclass(frozen=True)
class Clicks:
    """What an annotator said about one object, in network voxels.

    Args:
        positive: on the object; negative: not on it. Voxels (x, y, z); the first positive one
            says which object is meant.
        class_id: fine class the object is said to have, -1 none.
        instance: the object is one instance (False: all of a class).
        kind: of object. A cell unless somebody says otherwise: it is cells that are joined and
            cut, a point in the middle of a neurite lies on a mitochondrion as often as not, and
            an organelle that is accepted for its cell costs the cell.
        split: an object is to fall in two: every point means all that holds to it.
    """

    positive: Sequence[Sequence[int]]
    negative: Sequence[Sequence[int]] = ()
    class_id: int = -1
    instance: bool = True
    kind: Kind = "cell"
    split: bool = False


@dataclass(frozen=True)
class ClickSource:
    """The network, the image and the cache between them.

    Args:
        net: in evaluation mode.
        weights: version of its weights.
        image: (X, Y, Z) in the network's frame, read lazily.
        image_key: identity of the image; must change when its content does.
        voxel_size_nm: (x, y, z) of the image.
        cache: shared by all requests.
        inference: window, limit and precision.
        hierarchy: of the network.
        joining: says which fragments belong together.
        objects: (X, Y, Z) ids of the objects that stand, 0 none, in the network's frame, read
            lazily; None where there are none to start from.
        kept: the fragments that `instances` left; None: none.
        heads: version of the study's heads on the network, which features do not depend on.
        grouping: the network that finds fragments, where it is another one on the same backbone.
    """

    net: NeuropilNet
    weights: str
    image: LazyImage
    image_key: str
    voxel_size_nm: tuple[float, float, float]
    cache: FeatureCache
    inference: InferenceSettings
    hierarchy: LabelHierarchy
    joining: JoinModel = PLAIN
    objects: LazyImage | None = None
    kept: Kept | None = None
    heads: str = ""
    grouping: NeuropilNet | None = None

    @property
    def shape(self) -> Triple:
        """Network voxels."""
        x, y, z = (int(n) for n in self.image.shape)
        return x, y, z

    @property
    def window(self) -> Triple:
        """Size of a window; a two-dimensional network sees one section at a time."""
        x, y, z = self.inference.click_window
        return (x, y, 1) if self.net.spatial_dims == 2 else (x, y, z)

    def features(self, box: Box) -> WindowFeatures:
        """Of one window, from the cache or computed now, in half precision."""

        def compute() -> WindowFeatures:
            contrast = self.cache.contrast(self.image_key, lambda: intensity_window(self.image))
            patch = normalize(np.asarray(self.image[box_slices(box)]), contrast)
            return compute_features(self.net, box, patch, self.inference.precision)

        return self.cache.get(WindowKey(self.weights, self.image_key, box), compute)

    def feature_volume(self, box: Box) -> Tensor:
        """(1, F, x, y, z) features of one window, as they are kept."""
        rows = self.features(box).features
        return rows.view(*box_shape(box), -1).movedim(-1, 0)[None]

    def beside(self, box: Box, heads: nn.Module | None) -> Tensor | None:
        """(1, x, y, z, COUNT) filter responses of one window, where some heads see them."""
        if not sees_responses(heads):
            return None
        shelf = Shelf(self.cache, self.weights, self.image_key)
        source = FeatureSource(self.net, self.image, self.inference.precision, shelf)
        return source.responses([box], self.voxel_size_nm)

    def beside_rows(self, box: Box) -> Tensor | None:
        """(V, COUNT) the same of the network's own study heads, in the order of the features."""
        found = self.beside(box, self.net.task_heads.study)
        return None if found is None else found.flatten(0, -2)

    def outputs(
        self, box: Box, heads: Collection[str], net: NeuropilNet | None = None
    ) -> dict[str, Tensor]:
        """What heads, of `net` or the network's own, say of one window.

        Returns:
            name -> (1, C, x, y, z) float32.
        """
        net = net or self.net
        beside = self.beside(box, net.task_heads.study)
        features = self.feature_volume(box)
        half = features.dtype == torch.bfloat16
        flat = net.spatial_dims == 2
        with (
            torch.inference_mode(),
            torch.autocast(features.device.type, torch.bfloat16, enabled=half),
        ):
            values = features if half else features.float()
            if flat:
                values, beside = values.squeeze(-1), None if beside is None else beside.squeeze(-2)
            out = net.heads(values, only=heads, beside=beside)
        return {n: (o.unsqueeze(-1) if flat else o).float() for n, o in out.items()}

    def classes(self, box: Box) -> NDArray[np.uint8]:
        """(x, y, z) fine class + 1 of one window, as the automatic mode says."""

        def compute() -> ClassMap:
            best = self.outputs(box, ("semantic",))["semantic"][0].argmax(0)
            return ClassMap((best + FINE_VALUE).to(torch.uint8).cpu().numpy())

        kind = f"window classes {self.heads}"
        key = WindowKey(self.weights, self.image_key, box, kind)
        return self.cache.get(key, compute).classes


def compute_features(
    net: NeuropilNet, box: Box, patch: NDArray[np.float32], precision: Precision
) -> WindowFeatures:
    """The backbone on one window, in half precision for the cache.

    Args:
        net: in evaluation mode.
        box: the window.
        patch: (x, y, z) normalised image of it.
        precision: of the computation.
    """
    device = next(net.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(patch)).to(device)[None, None]
    if net.spatial_dims == 2:
        assert patch.shape[2] == 1, "a two-dimensional network sees one section at a time"
        image = image.squeeze(-1)
    half = use_bfloat16(precision, device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        volume = net.features(image)[0]
    with torch.inference_mode():
        # The heads of the automatic mode read features in this type as well.
        kept = torch.bfloat16 if half else torch.float16
        features = volume.movedim(0, -1).reshape(-1, volume.shape[0]).to(kept)
        embedding = [
            net.task_heads.rows(part.float(), ("instance",))["instance"].half()
            for part in torch.split(features, 1 << 16)
        ]
        return WindowFeatures(box, features, torch.cat(embedding))
