"""A small network on rows of features, fitted elsewhere and kept as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_LOGIT = 8.0


@dataclass(frozen=True)
class Perceptron:
    """One value for each row.

    Args:
        layers: (weight, bias) of each layer, ReLU between them.
        shift, scale: of the features, before the first layer.
    """

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    shift: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Features of a row."""
        return int(self.layers[0][0].shape[1])

    def outputs(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, width) -> (N,)."""
        values = (features - self.shift) / self.scale
        for i, (weight, bias) in enumerate(self.layers):
            values = values @ weight.T + bias
            if i + 1 < len(self.layers):
                values = np.maximum(values, 0.0)
        return np.asarray(values[:, 0].astype(np.float64))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, width) -> (N,) log odds, within +-LARGEST_LOGIT."""
        return np.asarray(np.clip(self.outputs(features), -LARGEST_LOGIT, LARGEST_LOGIT))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layers": [[w.tolist(), b.tolist()] for w, b in self.layers],
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Perceptron:
        """The one of `to_dict`."""
        layers = tuple(
            (np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in data["layers"]
        )
        return Perceptron(layers, *(np.asarray(data[k], np.float32) for k in ("shift", "scale")))
