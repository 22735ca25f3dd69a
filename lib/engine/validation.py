"""Validation: a fixed set of places, scored on known validation voxels only."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch

from lib.configs.settings import Settings
from lib.data.batches import Batch, collate, to_device
from lib.data.items import DataItem, Patch
from lib.data.patch_shapes import patch_shape
from lib.engine.patch_objects import group_patch
from lib.engine.prompt_gain import PromptScores, score_prompts
from lib.labels.class_sets import cells_only
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.losses.criterion import Criterion
from lib.metrics.class_scores import ClassReport, ClassScores
from lib.metrics.object_scores import adapted_rand_error, contingency
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet
from lib.prediction.filters import beside_of
from lib.targets.prepare import prepare_targets
from lib.targets.processes import one_process
from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError

logger = logging.getLogger("neuropil.training")

LEAST_KNOWN = 0.02
"""Share of a place's voxels that must be known validation voxels ..."""

ENOUGH_KNOWN = 200
"""... or so many of them: a stroke in a thin volume is a small share of a large place."""

GROUPED_PLACES = 8
"""So many places are grouped into objects, which costs more than the network."""


@dataclass(frozen=True)
class Place:
    """A box of an item that validates."""

    item: DataItem
    box: Box

    def read(self) -> Patch:
        """The patch, unknown wherever it may not validate."""
        patch = self.item.read(self.box)
        outside = ~self.item.split.validating(self.box)
        patch.class_sets[outside] = self.item.hierarchy.unknown
        patch.instance[outside] = IGNORE_INDEX
        if not self.item.true_instances and not self.item.flat:
            patch.instance.fill(IGNORE_INDEX)
        return patch

    @property
    def rank(self) -> float:
        """A number in [0, 1) that depends on the item's id and the box only."""
        key = f"{self.item.id}|{self.box}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64


def validation_places(items: Sequence[DataItem], patch_size: Triple, limit: int) -> list[Place]:
    """The places to validate on: at most `limit`, shared evenly between groups of items.

    Which places they are depends on the items and on where labels are, never on chance.
    """
    groups: dict[str, list[Place]] = {}
    for item in items:
        shape = patch_shape(item, patch_size)
        for box in _tiles(item, shape):
            place = Place(item, box)
            if _known_voxels(place) >= min(
                LEAST_KNOWN * math.prod(hi - lo for lo, hi in box), ENOUGH_KNOWN
            ):
                groups.setdefault(item.group, []).append(place)
    ranked = [sorted(places, key=lambda p: p.rank) for _, places in sorted(groups.items())]
    chosen: list[Place] = []
    for turn in range(max((len(places) for places in ranked), default=0)):
        chosen += [places[turn] for places in ranked if turn < len(places)]
    return chosen[:limit]


def readable_places(places: Sequence[Place], note: Callable[[str], None]) -> list[Place]:
    """The places whose voxels can be read.

    Args:
        note: told of each other one, and why.
    """
    found = []
    for place in places:
        try:
            place.read()
            found.append(place)
        except VolumeError as error:
            note(f"not validated: {place.item.id} {place.box}: {error}")
    return found


@dataclass
class ValidationReport:
    """Figures of one set of weights on the validation places.

    Args:
        classes: class figures on known voxels.
        losses: the criterion's automatic losses, mean over places.
        are: adapted Rand error of the instances, mean over places that have true objects.
        prompts: what prompts buy.
        places: how many places were scored.
    """

    classes: ClassReport
    losses: dict[str, float]
    are: float
    prompts: PromptScores
    places: int

    @property
    def score(self) -> float:
        """The figure by which weights are compared: the mean of what can be measured of mean
        IoU of the classes, 1 - adapted Rand error, IoU of the clicked object. NaN if nothing."""
        known = [p for p in self.parts.values() if not math.isnan(p)]
        return sum(known) / len(known) if known else math.nan

    @property
    def parts(self) -> dict[str, float]:
        """What the score is made of, more is better; NaN where it cannot be measured."""
        return {
            "mean IoU of classes": self.classes.mean_iou,
            "1 - adapted Rand error": 1 - self.are,
            "IoU of the clicked object": self.prompts.with_prompts,
        }

    def scalars(self) -> dict[str, float]:
        """Named figures for the log; those that cannot be measured are left out."""
        report = self.classes
        values = {
            "val/score": self.score,
            "val/accuracy": report.accuracy,
            "val/set_accuracy": report.set_accuracy,
            "val/mean_iou": report.mean_iou,
            "val/mean_dice": report.mean_dice,
            "val/are": self.are,
            "val/prompt_iou": self.prompts.with_prompts,
            "val/prompt_iou_without": self.prompts.without_prompts,
            "val/prompt_gain": self.prompts.gain,
        }
        values |= {f"val/{key}": value for key, value in self.losses.items()}
        for name, score in report.by_class.items():
            if score.support:
                values |= {f"val/iou/{name}": score.iou, f"val/dice/{name}": score.dice}
        return {key: value for key, value in values.items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """JSON form without NaN."""
        return {"figures": self.scalars(), "classes": self.classes.to_dict(), "places": self.places}


@dataclass
class _Tally:
    scores: ClassScores
    losses: list[dict[str, float]] = field(default_factory=list)
    rand_errors: list[float] = field(default_factory=list)
    prompted: list[tuple[float, float]] = field(default_factory=list)


def validate(
    net: NeuropilNet,
    places: Sequence[Place],
    settings: Settings,
    hierarchy: LabelHierarchy,
    device: torch.device,
    autocast: Autocast,
    alone: bool = False,
) -> ValidationReport:
    """Score a network; the processes share the places, and all get the report.

    Args:
        net: any mode; left as it was.
        places: from `validation_places`.
        settings: losses, prompts.
        hierarchy: classes and groups.
        device: where the network is.
        autocast: opens the mixed-precision region.
        alone: this process scores all places by itself, without the others.
    """
    tally = _Tally(ClassScores(hierarchy))
    loss = settings.loss
    for head in ("geometry", "affinity"):
        if head not in net.task_heads.layers:  # published weights may lack a head of this run
            loss = loss.model_copy(update={f"weight_{head}": 0.0})
    criterion = Criterion(loss, hierarchy)
    training = net.training
    net.eval()
    with torch.no_grad(), one_process():
        rank, world = (0, 1) if alone else (idist.get_rank(), idist.get_world_size())
        for number, place in list(enumerate(places))[rank::world]:
            try:
                patch = place.read()
            except VolumeError as error:  # it could be read when the run began
                logger.warning("not validated: %s %s: %s", place.item.id, place.box, error)
                continue
            batch = to_device(collate([patch], net.spatial_dims), device)
            grouped = number < GROUPED_PLACES
            seed = int(place.rank * 2**31)
            _count(tally, net, batch, criterion, settings, hierarchy, autocast, grouped, seed)
    net.train(training)
    return _report([tally] if alone else _gather(tally), hierarchy)


def _count(
    tally: _Tally,
    net: NeuropilNet,
    batch: Batch,
    criterion: Criterion,
    settings: Settings,
    hierarchy: LabelHierarchy,
    autocast: Autocast,
    grouped: bool,
    seed: int,
) -> None:
    """Add the figures of one place, a batch of one patch; its objects where it is grouped."""
    beside = beside_of(net, batch["image"], batch["voxel_size_nm"])
    with autocast():
        features = net.features(batch["image"])
        outputs = net.heads(features, beside=beside)
    targets = prepare_targets(batch, hierarchy, criterion.loss)
    losses = criterion(outputs, targets)
    tally.losses.append({k: float(v) for k, v in losses.items()})
    sets = targets.class_sets[0].cpu().numpy()
    tally.scores.update(sets, outputs["semantic"][0].argmax(0).cpu().numpy())
    if grouped and bool((batch["instance"] > 0).any()):
        found = group_patch(net, features, outputs, batch, hierarchy, settings.inference)
        truth = cells_only(batch["instance"][0].cpu().numpy(), sets, hierarchy)
        tally.rand_errors.append(adapted_rand_error(contingency(truth, found.numpy())))
    tally.prompted += score_prompts(
        net, features, outputs, batch, settings, hierarchy, autocast, seed
    )


def _gather(tally: _Tally) -> list[_Tally]:
    if idist.get_world_size() == 1:
        return [tally]
    mine = (tally.scores.rows(), tally.losses, tally.rand_errors, tally.prompted)
    everyone: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    gathered = []
    for rows, losses, errors, prompted in everyone:
        part = _Tally(ClassScores(tally.scores.hierarchy), losses, errors, prompted)
        part.scores.add_rows(rows)
        gathered.append(part)
    return gathered


def _report(tallies: Sequence[_Tally], hierarchy: LabelHierarchy) -> ValidationReport:
    scores = ClassScores(hierarchy)
    for tally in tallies:
        scores.merge(tally.scores)
    losses = [entry for tally in tallies for entry in tally.losses]
    prompted = [pair for tally in tallies for pair in tally.prompted]
    errors = [e for tally in tallies for e in tally.rand_errors if not math.isnan(e)]
    keys = losses[0] if losses else {}
    return ValidationReport(
        classes=scores.result(),
        losses={k: float(np.mean([entry[k] for entry in losses])) for k in keys},
        are=float(np.mean(errors)) if errors else math.nan,
        prompts=PromptScores.of(prompted),
        places=len(losses),
    )


def _known_voxels(place: Place) -> int:
    sets, ids = place.item.read_labels(place.box)
    known = (sets != place.item.hierarchy.unknown) | (ids > 0)
    return int((known & place.item.split.validating(place.box)).sum())


def _tiles(item: DataItem, shape: Triple) -> list[Box]:
    """Boxes of about `shape` that tile the item's validation boxes."""
    found: list[Box] = []
    for val in item.split.val_boxes:
        spans = []
        for (lo, hi), size, length in zip(val, shape, item.shape, strict=True):
            count = max(1, math.ceil((hi - lo) / size))
            starts = [lo + round(i * (hi - lo) / count) for i in range(count)]
            fitted = [min(max(s, 0), max(length - size, 0)) for s in starts]
            spans.append([(s, min(s + size, length)) for s in sorted(set(fitted))])
        found += [(x, y, z) for x, y, z in product(*spans)]
    return sorted(set(found))
