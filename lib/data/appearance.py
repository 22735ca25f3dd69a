"""Augmentation of intensities: contrast, shading, blur, noise, missing sections and defects.

Labels stay: a missing section is still tissue, which the network must bridge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]

GAMMA = (0.7, 1.4)
CONTRAST = 0.25
BRIGHTNESS = 0.15
SECTION_CONTRAST = 0.1
SECTION_BRIGHTNESS = 0.05
BLUR_VOXELS = (0.5, 1.5)
NOISE = 0.08
SHADING = 0.4
"""Most that one side of a patch is darker than the other, as a share, at strength 1."""
FEWEST_SECTIONS = 6
"""Patches with fewer sections keep all of them."""


def change_appearance(
    image: Image,
    sections: bool,
    generator: np.random.Generator,
    strength: float = 1.0,
    inverted: float = 0.0,
) -> Image:
    """A patch as another microscope, day or cut would have shown it.

    Args:
        image: (X, Y, Z) float32 in [0, 1].
        sections: whether the axis z is cut sections, which differ from each other and may be
            missing or damaged.
        generator: of every draw.
        strength: of the changes of contrast, brightness, shading and gamma; 0: none of them.
        inverted: share of the patches whose contrast is inverted.

    Returns:
        a new array in [0, 1].
    """
    changed = image.copy()
    if generator.random() < 0.7:
        _change_contrast(changed, sections, generator, strength)
    if generator.random() < 0.2:
        _blur(changed, generator)
    if generator.random() < 0.4:
        sigma = float(generator.uniform(0, NOISE))
        changed += sigma * generator.standard_normal(changed.shape, dtype=np.float32)
    if sections and changed.shape[2] >= FEWEST_SECTIONS:
        _damage(changed, generator)
    if generator.random() < 0.2:
        _shade(changed, generator, strength)
    np.clip(changed, 0.0, 1.0, out=changed)
    if generator.random() < inverted:
        np.subtract(1.0, changed, out=changed)
    return changed


def _change_contrast(
    image: Image, sections: bool, generator: np.random.Generator, strength: float
) -> None:
    """Gamma, contrast and brightness of the whole, then a little more for each section."""
    np.clip(image, 0.0, 1.0, out=image)
    if generator.random() < 0.5:
        np.power(image, np.float32(generator.uniform(*GAMMA) ** strength), out=image)
    gain = 1 + strength * generator.uniform(-CONTRAST, CONTRAST)
    offset = strength * generator.uniform(-BRIGHTNESS, BRIGHTNESS)
    gains, offsets = np.full(image.shape[2], gain), np.full(image.shape[2], offset)
    if sections:
        gains *= 1 + strength * generator.normal(0, SECTION_CONTRAST, image.shape[2])
        offsets += strength * generator.normal(0, SECTION_BRIGHTNESS, image.shape[2])
    image -= np.float32(0.5)
    image *= gains.astype(np.float32)
    image += (0.5 + offsets).astype(np.float32)


def _shade(image: Image, generator: np.random.Generator, strength: float) -> None:
    """Darker towards one side in plane."""
    angle = generator.uniform(0, 2 * np.pi)
    x, y = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in image.shape[:2])
    ramp = 0.5 + (np.cos(angle) * x[:, None] + np.sin(angle) * y[None, :]) / np.sqrt(2)
    depth = strength * generator.uniform(0, SHADING)
    image *= (1 - depth * ramp).astype(np.float32)[..., None]


def _blur(image: Image, generator: np.random.Generator) -> None:
    """Out of focus in plane: everything, or a run of sections."""
    sigma = float(generator.uniform(*BLUR_VOXELS))
    depth = image.shape[2]
    start, stop = 0, depth
    if depth >= FEWEST_SECTIONS and generator.random() < 0.7:
        start = int(generator.integers(depth))
        stop = min(depth, start + 1 + int(generator.integers(3)))
    image[..., start:stop] = ndimage.gaussian_filter(
        image[..., start:stop], (sigma, sigma, 0.0), truncate=3.0
    )


def _damage(image: Image, generator: np.random.Generator) -> None:
    """Sections missing, of low contrast, or crossed by a fold or a knife mark."""
    depth = image.shape[2]
    if generator.random() < 0.1:
        image[..., int(generator.integers(depth))] = np.float32(generator.choice([0.0, 0.5, 1.0]))
    if generator.random() < 0.15:
        z = int(generator.integers(depth))
        image[..., z] = 0.5 + (image[..., z] - 0.5) * np.float32(generator.uniform(0.2, 0.6))
    if generator.random() < 0.15:
        z = int(generator.integers(depth))
        image[..., z] += _band(image.shape[0], image.shape[1], generator)


def _band(width: int, height: int, generator: np.random.Generator) -> Image:
    """A dark or bright line across a section, (width, height)."""
    angle = generator.uniform(0, np.pi)
    x = np.arange(width, dtype=np.float32)[:, None] - generator.uniform(0, width)
    y = np.arange(height, dtype=np.float32)[None, :] - generator.uniform(0, height)
    distance = np.cos(angle) * x + np.sin(angle) * y
    thickness = generator.uniform(1.0, 6.0)
    depth = generator.uniform(0.3, 0.8) * generator.choice([-1.0, 1.0])
    band: Image = (depth * np.exp(-0.5 * (distance / thickness) ** 2)).astype(np.float32)
    return band
