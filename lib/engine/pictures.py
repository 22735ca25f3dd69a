"""One picture of a validation section: image, label, prediction, instances, direction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.data.batches import collate, to_device
from lib.engine.patch_objects import group_patch
from lib.engine.validation import Place
from lib.labels.colors import Rgb, id_colors, overlay, set_colors
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet

GAP_PIXELS = 4
PANEL_PIXELS, TITLE_PIXELS, COLUMNS = 256, 24, 3


def place_picture(
    place: Place,
    net: NeuropilNet,
    inference: InferenceSettings,
    device: torch.device,
    autocast: Autocast,
) -> Rgb:
    """The picture of a validation place as a network sees it now."""
    hierarchy = place.item.hierarchy
    batch = to_device(collate([place.read()], net.spatial_dims), device)
    training = net.training
    net.eval()
    with torch.no_grad(), autocast():
        features = net.features(batch["image"])
        outputs = net.heads(features)
    net.train(training)
    found = group_patch(net, features, outputs, batch, hierarchy, inference)
    first = {name: values[0] for name, values in outputs.items()}
    return section_picture(
        batch["image"][0],
        batch["class_sets"][0],
        batch["instance"][0],
        first,
        hierarchy,
        found,
    )


def section_picture(
    image: Tensor,
    class_sets: Tensor,
    instance: Tensor,
    outputs: dict[str, Tensor],
    hierarchy: LabelHierarchy,
    found: Tensor | None = None,
) -> Rgb:
    """The middle section of one patch in titled panels, three beside each other.

    Image; known classes; predicted classes; known objects; found objects (or the embedding's
    first principal components as colours); predicted direction (x red, y green). Voxels of
    unknown label show the bare image. Each panel is magnified to PANEL_PIXELS or more.

    Args:
        image: (1, *S) in [0, 1].
        class_sets: (*S) bit masks.
        instance: (*S) ids.
        outputs: of the network for this patch, without the batch axis.
        hierarchy: gives classes their colours.
        found: (*S) predicted instance ids.

    Returns:
        (3, height, width) float32 in [0, 1].
    """
    if image.ndim == 3:  # a network of two axes: one section
        outputs = {name: values.unsqueeze(-1) for name, values in outputs.items()}
        image, class_sets, instance = (v.unsqueeze(-1) for v in (image, class_sets, instance))
        found = None if found is None else found.unsqueeze(-1)
    z = image.shape[-1] // 2
    grey = np.repeat(image[0, ..., z].cpu().float().numpy()[..., None], 3, axis=2)
    sets = class_sets[..., z].cpu().numpy()
    ids = instance[..., z].cpu().numpy()
    classes = outputs["semantic"][..., z].argmax(0).cpu().numpy()
    everywhere = np.ones_like(ids, bool)
    panels = {
        "image": grey,
        "known classes": overlay(grey, set_colors(sets, hierarchy), sets != hierarchy.unknown),
        "predicted classes": overlay(grey, set_colors(1 << classes, hierarchy), everywhere),
        "known objects": overlay(grey, id_colors(ids), ids > 0),
    }
    if found is not None:
        guess = found[..., z].cpu().numpy()
        panels["found objects"] = overlay(grey, id_colors(guess), guess > 0)
    else:
        panels["embedding"] = _embedding_colors(outputs["instance"][..., z])
    if "geometry" in outputs:
        panels["direction to the centre"] = _direction_colors(outputs["geometry"][..., z])
    return titled_panels(panels)


def titled_panels(panels: Mapping[str, Rgb]) -> Rgb:
    """Panels of one size in rows of three, each magnified and under its title.

    Args:
        panels: title -> (X, Y, 3) in [0, 1].

    Returns:
        (3, height, width) float32 in [0, 1].
    """
    tiles = [_titled(title, panel) for title, panel in panels.items()]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // COLUMNS)
    page = np.ones((rows * (height + GAP_PIXELS), COLUMNS * (width + GAP_PIXELS), 3), np.float32)
    for number, tile in enumerate(tiles):
        top, left = (n * (size + GAP_PIXELS) for n, size in zip(
            divmod(number, COLUMNS), (height, width), strict=True))  # fmt: skip
        page[top : top + height, left : left + width] = tile
    picture: Rgb = page[:-GAP_PIXELS, :-GAP_PIXELS].transpose(2, 0, 1)
    return np.clip(picture, 0.0, 1.0)


def _titled(title: str, panel: Rgb) -> Rgb:
    """(height, width, 3); the first axis of a panel is x and runs to the right."""
    times = max(1, -(-PANEL_PIXELS // min(panel.shape[:2])))
    rows = panel.transpose(1, 0, 2).repeat(times, 0).repeat(times, 1)
    bar = Image.new("RGB", (rows.shape[1], TITLE_PIXELS), "white")
    ImageDraw.Draw(bar).text((4, 2), title, "black", ImageFont.load_default(TITLE_PIXELS - 8))
    strip = np.asarray(bar, np.float32) / 255
    return np.concatenate([strip, rows.astype(np.float32)])


def _embedding_colors(embedding: Tensor) -> Rgb:
    rows = embedding.float().cpu().flatten(1).t()
    rows = rows - rows.mean(0)
    _, _, axes = torch.linalg.svd(rows[:: max(1, len(rows) // 4096)], full_matrices=False)
    parts = rows @ axes[:3].t()
    parts = (parts / (4 * parts.std(0).clamp_min(1e-6)) + 0.5).clamp(0, 1)
    colors = torch.zeros(len(parts), 3)
    colors[:, : parts.shape[1]] = parts
    out: Rgb = colors.view(*embedding.shape[1:], 3).numpy()
    return out


def _direction_colors(geometry: Tensor) -> Rgb:
    direction = geometry[:3].float().cpu().movedim(0, -1).clamp(-1, 1)
    out: Rgb = (0.5 + 0.5 * direction).numpy()
    return out
