"""From tissue to image: blur, uneven contrast from section to section, noise, damage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.synthetic.noise import Field, Frame, smooth_noise


def acquire(grey: Field, vague: Field, frame: Frame, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Image the tissue.

    Args:
        grey: (X, Y, Z) tissue, 0..255.
        vague: (X, Y, Z) in [0, 1]: how far structure is lost (uncertain patches).
        frame: the grid.
        rng: source of the noise.

    Returns:
        (X, Y, Z) uint8.
    """
    image = _blur(grey, 0.62)
    smeared = _blur(grey, 3.2)
    image += vague * (0.75 * smeared + 0.25 * 140.0 - image)
    depth = frame.shape[2]
    unsteady = 1.0 if frame.sectioned else 0.25
    gain = 1.0 + unsteady * 0.07 * rng.standard_normal(depth)
    offset = unsteady * 7.0 * rng.standard_normal(depth)
    if frame.sectioned:
        odd = rng.random(depth) < 0.03
        gain[odd] *= rng.uniform(0.7, 0.85, int(odd.sum()))
        offset[odd] += rng.uniform(-25.0, 25.0, int(odd.sum()))
    image = (image - 128.0) * gain.astype(np.float32) + np.float32(128.0)
    image += offset.astype(np.float32)
    image += 4.0 * smooth_noise(frame, 900.0 * frame.scale, rng)
    noise = rng.standard_normal(frame.shape, dtype=np.float32)
    image += noise * (4.0 + 0.35 * np.sqrt(np.maximum(image, 1.0)))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _blur(grey: Field, sigma: float) -> Field:
    """In-plane blur; sections do not mix."""
    for axis in (0, 1):
        grey = ndimage.gaussian_filter1d(grey, sigma, axis=axis, truncate=3.0)
    return grey
