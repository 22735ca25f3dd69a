"""Publication: the weights that inference uses change only for better ones.

`model/neuropil.pt` is replaced by a rename, its digest with it (`lib/networks/digests.py`); the
version before stays under `model/previous/`, from where it can be restored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.digests import digest_path, place_weights, recorded_digest
from lib.networks.model import NeuropilNet
from lib.networks.weights import load_network, load_weights, save_weights

KEPT_VERSIONS = 5
LARGEST_LOSS = 0.01
"""By which a single figure may fall while the score rises."""


@dataclass
class Publisher:
    """Compares weights with the published ones on the same validation places.

    Args:
        path: the published file.
        settings: of the candidate's network.
        hierarchy: its classes and groups.
        score: scores a network on the validation places of this run.
        device: where to score.
        adapt: what is put on the published network before it is scored, so that a run has to
            beat what can be had without it.
        parts: named figures of the network that was scored last, more is better; no one of
            them may fall by more than LARGEST_LOSS.
    """

    path: Path
    settings: Settings
    hierarchy: LabelHierarchy
    score: Callable[[NeuropilNet], float]
    device: torch.device
    adapt: Callable[[NeuropilNet], NeuropilNet] | None = None
    parts: Callable[[], Mapping[str, float]] = dict
    _known: tuple[int, float] | None = None
    _parts: Mapping[str, float] = field(default_factory=dict)

    def published_score(self) -> float | None:
        """The published weights' score on this run's places; None where none can be compared.

        Weights of another hierarchy do not compare: they answer another question.
        """
        if not self.path.exists():
            return None
        stamp = self.path.stat().st_mtime_ns
        if self._known is None or self._known[0] != stamp:
            net, _, hierarchy, _ = load_network(self.path, self.device)
            if hierarchy.to_dict() != self.hierarchy.to_dict():
                return None
            if self.adapt is not None:
                net = self.adapt(net)
            self._known = (stamp, self.score(net))
            self._parts = self.parts()
        return self._known[1]

    def offer(
        self,
        state: Mapping[str, Tensor],
        score: float,
        meta: Mapping[str, Any],
        parts: Mapping[str, float] | None = None,
    ) -> tuple[bool, str]:
        """Publish weights if they are better than the published ones.

        Args:
            state: the candidate's state dict.
            score: its score on this run's places; NaN without any validation voxel.
            meta: goes into the file.
            parts: the candidate's named figures, as `parts` gives them.

        Returns:
            whether they were published, and why.
        """
        before = self.published_score()
        if math.isnan(score) and self.path.exists():
            return False, "no validation voxel is annotated yet, so nothing shows they are better"
        if before is not None and not math.isnan(before) and score <= before:
            return False, f"score {score:.4f} is not above the published weights' {before:.4f}"
        for name, figure in (parts or {}).items():
            old = self._parts.get(name, math.nan)
            if figure < old - LARGEST_LOSS:
                return False, f"{name} would be {figure:.4f}, before {old:.4f}"
        keep_version(self.path)
        save_weights(self.path, state, self.settings, self.hierarchy, meta)
        self._known = (self.path.stat().st_mtime_ns, score)
        self._parts = parts or {}
        if before is None:
            return True, f"score {score:.4f}; nothing comparable was published"
        return True, f"score {score:.4f}, before {before:.4f}"


def keep_version(path: Path) -> Path | None:
    """Copy the published file aside, atomically, with its digest; the oldest of many copies go.

    A file that is not what its digest says is kept so too: restoring it is then refused.

    Returns:
        the copy, None where nothing is published.
    """
    if not path.exists():
        return None
    folder = path.parent / "previous"
    seconds, fraction = divmod(path.stat().st_mtime_ns, 10**9)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
    target = folder / f"{path.stem}-{stamp}-{fraction:09d}{path.suffix}"
    if not target.exists():
        place_weights(target, path.read_bytes(), recorded_digest(path))
    for old in versions(path)[KEPT_VERSIONS:]:
        old.unlink()
        digest_path(old).unlink(missing_ok=True)
    return target


def versions(path: Path) -> list[Path]:
    """The kept versions of a published file, newest first."""
    return sorted((path.parent / "previous").glob(f"{path.stem}-*{path.suffix}"), reverse=True)


def restore_version(path: Path, version: Path | None = None) -> Path:
    """Publish a kept version again; the one it replaces is kept as well.

    Args:
        path: the published file.
        version: the version; None: the newest kept one.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    kept = versions(path)
    if version is None:
        if not kept:
            raise ValueError(f"{path.parent / 'previous'}: no previous weights to restore")
        version = kept[0]
    load_weights(version)
    data = version.read_bytes()
    keep_version(path)
    place_weights(path, data)
    return version
