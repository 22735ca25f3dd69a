"""The whole network: backbone, point-prompt residual, heads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.backbones import build_backbone
from lib.networks.heads import Heads, head_sizes
from lib.networks.mask_head import MaskHead
from lib.prompts.encoder import PointPromptEncoder, SparseResidual
from lib.prompts.points import PointPrompts


class NeuropilNet(nn.Module):
    """One network for every task.

        features = backbone(image);  outputs = heads(features [+ prompt residual])

    Images are (B, 1, *S) float in [0, 1]. With `spatial_dims` 3 a 2D image (B, 1, X, Y) is
    taken as one section and the outputs come back without the section axis; geometry keeps
    the channels of three dimensions.

    Args:
        model: shape of the network.
        loss: `weight_geometry` 0 drops the geometry head, `weight_affinity` > 0 adds the
            affinity head, `weight_prompt` > 0 the mask head.
        hierarchy: classes and groups.

    Source: spec/training-modes.md 1 and 2a.
    """

    def __init__(self, model: ModelSettings, loss: LossSettings, hierarchy: LabelHierarchy) -> None:
        super().__init__()
        self.spatial_dims = model.spatial_dims
        self.feature_channels = model.head_size
        self.embedding_size = model.embedding_size
        self.delta_d = loss.delta_d  # half the least distance of two objects' embeddings
        self.backbone = build_backbone(model)
        self.prompt_encoder = PointPromptEncoder(
            hierarchy.num_classes,
            model.head_size,
            model.spatial_dims,
            groups=math.gcd(4, model.head_size),
        )
        # What was fitted to these weights afterwards, as plain values: how fragments join
        # (lib/prediction/joining.py), where boundaries are (lib/prediction/ways.py), what a
        # corrective click means (lib/clicks/meaning.py).
        self.joining: Mapping[str, Any] | None = None
        self.boundary: Mapping[str, Any] | None = None
        self.meaning: Mapping[str, Any] | None = None
        # Names of the classes that real tissue taught; None: not known, so all count.
        self.classes_learned: tuple[str, ...] | None = None
        self.task_heads = Heads(
            model.head_size, head_sizes(model, loss, hierarchy), model.spatial_dims
        )
        self.mask_head: MaskHead | None = None
        if loss.weight_prompt > 0:
            self.mask_head = MaskHead(self.task_heads.hidden_channels, loss.delta_d)

    @property
    def fitted(self) -> dict[str, Any]:
        """What is known of the weights beside them; it goes wherever they go."""
        found = {"joining": self.joining, "boundary": self.boundary, "meaning": self.meaning}
        told: dict[str, Any] = {k: dict(v) for k, v in found.items() if v is not None}
        if self.classes_learned is not None:
            told["classes_learned"] = list(self.classes_learned)
        return told

    def take_fitted(self, meta: Mapping[str, Any]) -> None:
        """Take over what a weights file's meta data hold of `fitted`."""
        self.joining, self.boundary = meta.get("joining"), meta.get("boundary")
        self.meaning = meta.get("meaning")
        learned = meta.get("classes_learned")
        self.classes_learned = None if learned is None else tuple(learned)

    def features(self, image: Tensor) -> Tensor:
        """(B, 1, *S) -> (B, F, *S), the features shared by automatic and proofread mode."""
        if image.ndim == self.spatial_dims + 1:
            return self.features(image.unsqueeze(-1)).squeeze(-1)
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != 1:
            raise ValueError(
                f"image: expected (B, 1, {', '.join('XYZ'[: self.spatial_dims])}), "
                f"found {tuple(image.shape)}"
            )
        out: Tensor = self.backbone(image)
        return out

    def sparse_residual(self, prompts: PointPrompts, shape: tuple[int, ...]) -> SparseResidual:
        """The prompts' residual as background and corrections; cost follows the points."""
        out: SparseResidual = self.prompt_encoder(prompts, tuple(shape))
        return out

    def prompt_residual(self, prompts: PointPrompts, shape: tuple[int, ...]) -> Tensor:
        """(B, F, *shape), what prompts add to the features; exact zeros for unprompted samples."""
        if len(shape) == self.spatial_dims - 1:
            points = _with_section(prompts)
            return self.sparse_residual(points, (*shape, 1)).dense().squeeze(-1)
        return self.sparse_residual(prompts, tuple(shape)).dense()

    def heads(
        self,
        features: Tensor,
        prompts: PointPrompts | None = None,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Evaluate the heads on features to which any residual has been added.

        Args:
            features: (B, F, *S).
            prompts: the points behind the residual; with them the mask head answers too.
            only: names of the heads wanted (semantic, coarse, instance, geometry, affinity);
                None: all.
            beside: (B, *S, K) what a study's heads see beside the features, where they do.

        Returns:
            "semantic" (B, C, *S), "coarse" (B, K, *S; absent without groups), "instance"
            (B, E, *S), "geometry" (B, S + S*S + 4, *S; absent when its weight is 0),
            "affinity" (B, 9, *S; with an affinity head, for `pair_logits`), "mask" (B, 1, *S;
            with a mask head and prompts).
        """
        flat = features.ndim == self.spatial_dims + 1
        whole = features.unsqueeze(-1) if flat else features
        if flat and beside is not None:
            beside = beside.unsqueeze(-2)
        out: dict[str, Tensor] = self.task_heads(whole, only, beside)
        hidden = out.pop("hidden")
        if self.mask_head is not None and prompts is not None and "instance" in out:
            points = _with_section(prompts) if flat else prompts
            out["mask"] = self.mask_head(hidden, out["instance"], points)
        return {k: v.squeeze(-1) for k, v in out.items()} if flat else out

    def prompted(
        self,
        features: Tensor,
        prompts: PointPrompts,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The heads on features plus the prompts' residual; without any point, `heads` itself."""
        if not prompts.any:
            return self.heads(features, None, only, beside)
        residual = self.prompt_residual(prompts, tuple(features.shape[2:]))
        return self.heads(features + residual.to(features.dtype), prompts, only, beside)

    def forward(
        self,
        image: Tensor,
        prompts: PointPrompts | None = None,
        semantic_ids: Tensor | None = None,
    ) -> dict[str, Any]:
        """Everything from an image.

        Args:
            image: (B, 1, *S).
            prompts: points in voxels of S, or None for the automatic mode.
            semantic_ids: passed through for the instance loss per class.

        Returns:
            As `heads`, plus "semantic_ids" where given.
        """
        features = self.features(image)
        out = self.heads(features) if prompts is None else self.prompted(features, prompts)
        return out if semantic_ids is None else {**out, "semantic_ids": semantic_ids}


def build_network(
    model: ModelSettings, loss: LossSettings, hierarchy: LabelHierarchy
) -> NeuropilNet:
    """The network in the memory format in which its convolutions are fastest."""
    net = NeuropilNet(model, loss, hierarchy)
    memory = torch.channels_last_3d if model.spatial_dims == 3 else torch.channels_last
    # Tensor.to accepts a memory format for modules whose parameters have mixed ranks.
    return net.to(memory_format=memory)  # type: ignore[call-overload,no-any-return]


def _with_section(prompts: PointPrompts) -> PointPrompts:
    """Points of a 2D image as points of its only section."""
    coords = torch.nn.functional.pad(prompts.coords, (0, 1))
    size = prompts.voxel_size_nm
    if size is not None and size.shape[1] == coords.shape[2] - 1:
        size = torch.cat((size, size[:, :1]), 1)
    return PointPrompts(coords, prompts.labels, prompts.class_ids, prompts.instance, size)
