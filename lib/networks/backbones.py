"""Backbones: MONAI's own networks, from an image to features at full resolution.

Electron-microscopy sections are often several times thicker than a pixel, and single images
have one section only. Both, and isotropic volumes, go through one network: its first levels
look and downsample in plane only, up to `section_ratio` (see benchmarks/network.md), so a
lone section needs little padding.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from monai.networks.nets.segresnet_ds import SegResNetDS, SegResNetDS2
from torch import Tensor, nn
from torch.nn import functional

from lib.configs.settings import ModelSettings
from lib.networks.fine import FinePath

SEGRESNET_BLOCKS = (1, 1, 2, 2)
VISTA3D_BLOCKS = (1, 2, 2, 4, 4)
"""As published; SegResNetDS2 with these, width 48 and instance norm is VISTA3D's encoder."""


class Backbone(nn.Module):
    """A MONAI network with padding around it, so that any size goes in and comes out.

    Args:
        network: SegResNetDS, or SegResNetDS2 (of which one decoder runs).
        channels: F of the features.
        groups: groups of the final norm, which brings features of any backbone to one scale.
        fine: adds full-resolution detail to the features; None: nothing does.

    Attributes:
        factor: what each axis of the padded input is a multiple of.
    """

    def __init__(
        self, network: SegResNetDS, channels: int, groups: int, fine: FinePath | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.norm = nn.GroupNorm(groups, channels)
        self.fine = fine
        shape_factor: Any = network.shape_factor  # untyped in MONAI
        self.factor: tuple[int, ...] = tuple(int(f) for f in shape_factor())
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                # MONAI leaves NumPy's integers here, which a compiler cannot trace.
                layer.stride = tuple(int(step) for step in layer.stride)
        self.two_decoders = isinstance(network, SegResNetDS2)
        if self.two_decoders:
            # Its second decoder would hold parameters that never get a gradient, which
            # distributed training refuses.
            network.up_layers_auto = nn.ModuleList()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *S) -> (B, F, *S), for any S."""
        size = image.shape[2:]
        x = pad_to_multiple(image, self.factor)
        x = self.network(x, with_label=False)[0] if self.two_decoders else self.network(x)
        x = self.norm(x)
        features: Tensor = x[(..., *(slice(0, s) for s in size))]
        return features if self.fine is None else features + self.fine(image)


def pad_to_multiple(image: Tensor, factor: tuple[int, ...]) -> Tensor:
    """Repeat the last voxel of each axis up to a multiple of `factor`.

    An axis is never shorter than twice its factor where the factor exceeds 1: instance norm
    needs more than one voxel at the deepest level.
    """
    padding: list[int] = []
    for size, step in zip(reversed(image.shape[2:]), reversed(factor), strict=True):
        steps = max(math.ceil(size / step), 2 if step > 2 else 1)
        padding += [0, steps * step - size]
    return functional.pad(image, padding, mode="replicate") if any(padding) else image


def build_backbone(model: ModelSettings) -> Backbone:
    """The backbone that `model` describes, features of `model.head_size` channels.

    Source: Myronenko 2018 (SegResNet); He et al. 2024 (VISTA3D).
    """
    groups = math.gcd(8, model.feature_size)
    norm = ("group", {"num_groups": groups}) if model.norm == "group" else "instance"
    resolution = None
    if model.spatial_dims == 3 and model.section_ratio > 1:
        resolution = (1, 1, model.section_ratio)
    vista = model.backbone == "vista3d"
    network = (SegResNetDS2 if vista else SegResNetDS)(
        spatial_dims=model.spatial_dims,
        init_filters=model.feature_size,
        in_channels=1,
        out_channels=model.head_size,
        norm=norm,
        blocks_down=VISTA3D_BLOCKS if vista else SEGRESNET_BLOCKS,
        upsample_mode="deconv" if vista else "nontrainable",
        resolution=resolution,
    )
    fine = None
    if model.fine_features:
        fine = FinePath(model.fine_features, model.head_size, model.spatial_dims)
    backbone = Backbone(network, model.head_size, math.gcd(4, model.head_size), fine)
    if model.pretrained_encoder is not None:
        load_vista3d_encoder(backbone, model.pretrained_encoder)
    return backbone


def load_vista3d_encoder(backbone: Backbone, path: str | Path) -> list[str]:
    """Fill a `vista3d` backbone with published VISTA3D weights.

    Encoder and point decoder are taken; the last layer, whose width is ours, is not. Where
    this network looks in plane only and the published kernel is cubic, the kernel is summed
    over the sections, which gives the same answer on an image that does not change from
    section to section.

    Args:
        path: state dict of MONAI's VISTA3D (keys `image_encoder.encoder. ...`), bare or
            under "model" or "state_dict".

    Returns:
        The keys of this backbone that were filled.

    Raises:
        ValueError: no readable file, or its layout or width does not fit.
    """
    if not backbone.two_decoders:
        raise ValueError("model.pretrained_encoder: needs model.backbone: vista3d")
    published = _read_published(path)
    own = backbone.network.state_dict()
    loaded: dict[str, Tensor] = {}
    for key, value in own.items():
        if ".head." in key:
            continue
        if key not in published:
            raise ValueError(
                f"model.pretrained_encoder {path}: no key image_encoder.{key}; the file has "
                f"{len(published)} keys under image_encoder; expected VISTA3D's layout with "
                "norm: instance"
            )
        loaded[key] = _fit(published[key], value, key, path)
    backbone.network.load_state_dict(loaded, strict=False)
    return sorted(loaded)


def _read_published(path: str | Path) -> dict[str, Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, UnpicklingError) as error:
        raise ValueError(f"model.pretrained_encoder {path}: {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    prefix = "image_encoder."
    if not isinstance(data, dict):
        raise ValueError(f"model.pretrained_encoder {path}: expected a state dict")
    found = {k.removeprefix("module."): v for k, v in data.items()}
    found = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    if not found:
        raise ValueError(
            f"model.pretrained_encoder {path}: no key starts with image_encoder.; "
            f"found {', '.join(list(data)[:3])} ..."
        )
    return found


def _fit(published: Tensor, own: Tensor, key: str, path: str | Path) -> Tensor:
    if published.shape == own.shape:
        return published
    same = published.ndim == own.ndim == 5 and published.shape[:4] == own.shape[:4]
    if same and own.shape[4] == 1 and ".upsample." not in key:
        return published.sum(4, keepdim=True)
    if same and own.shape[4] == 1:  # a transposed convolution that leaves sections alone
        return published[..., published.shape[4] // 2 :][..., :1]
    raise ValueError(
        f"model.pretrained_encoder {path}: image_encoder.{key} has shape "
        f"{tuple(published.shape)}, expected {tuple(own.shape)}; "
        "published VISTA3D needs model.feature_size: 48"
    )
