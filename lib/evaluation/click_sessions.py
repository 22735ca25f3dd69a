"""Simulated click sessions on the objects of a volume, for any way of answering clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.clicks.answer import segment_clicked
from lib.clicks.source import Clicks, ClickSource, Kind
from lib.clicks.viewer import FramedLabels
from lib.metrics.clicks import Click, Mask, seeded_generator, simulate_clicks
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import box_slices, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.frames import ViewerFrame
from lib.volumes.study import StudyItem

Answers = Callable[[Sequence[Click]], Mask]
"""Clicks in network voxels -> the object's mask over the whole network volume."""


def app_answers(
    predictor: Predictor,
    item: StudyItem,
    objects: LazyImage,
    fragments: Fragments | None = None,
) -> Answers:
    """What the `proofread` task answers on an item in which `instances` found objects.

    Args:
        objects: (X, Y, Z) their ids on the item's own grid, 0 none.
        fragments: that they are made of, which the app keeps; None: made anew around the clicks.
    """
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    image = frame.view(item.open_seen())
    standing = FramedLabels(frame, objects) if predictor.inference.click_fragments else None
    voxel_size_nm = frame.network_voxel_size_nm
    return app_answers_on(predictor, image, voxel_size_nm, item.id, standing, fragments)


def app_answers_on(
    predictor: Predictor,
    image: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    image_key: str,
    objects: LazyImage | None = None,
    fragments: Fragments | None = None,
    kind: Kind = "cell",
) -> Answers:
    """What the `proofread` task answers on an image in the network's frame.

    Args:
        predictor: network and settings.
        image: in the network's frame.
        voxel_size_nm: of it.
        image_key: its identity.
        objects: automatic objects in the network's frame; None: none were found before.
        fragments: that they are made of; None: made anew around the clicks.
        kind: of object that is clicked on.
    """
    source = ClickSource(
        predictor.net,
        "evaluated",
        image,
        image_key,
        voxel_size_nm,
        FeatureCache(predictor.inference.cache_bytes),
        predictor.inference,
        predictor.hierarchy,
        predictor.joining,
        objects,
        None if fragments is None else ("evaluated", lambda: fragments),
    )

    def answer(clicks: Sequence[Click]) -> Mask:
        found = segment_clicked(source, as_points(clicks, kind))
        mask = np.zeros(source.shape, bool)
        mask[box_slices(found.box)] = found.mask
        return mask

    return answer


def as_points(clicks: Sequence[Click], kind: Kind = "cell") -> Clicks:
    """Clicks of an object whose class nobody named."""
    return Clicks(
        [c.position for c in clicks if c.positive],
        [c.position for c in clicks if not c.positive],
        kind=kind,
    )


def clickable_objects(instances: NDArray[np.int64], min_voxels: int, most: int = 0) -> list[int]:
    """Objects of at least `min_voxels`, ascending; `most` of them, evenly drawn, if given."""
    ids, sizes = np.unique(instances[instances > 0], return_counts=True)
    found = [int(i) for i in ids[sizes >= max(min_voxels, 1)]]
    if most and len(found) > most:
        found = [found[round(i * (len(found) - 1) / max(most - 1, 1))] for i in range(most)]
    return found


@dataclass(frozen=True)
class Session:
    """Simulated clicks on one object.

    Args:
        instance: its id.
        truth: (X, Y, Z) bool, network voxels.
        clicks: in order, network voxels.
        quality: IoU after each.
    """

    instance: int
    truth: Mask
    clicks: list[Click]
    quality: list[float]


def click_sessions(
    answer: Answers,
    frame: ViewerFrame,
    instances: NDArray[np.int64],
    item_id: str,
    most: int,
    min_voxels: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Session]:
    """Sessions on the objects of one item, in network voxels.

    Args:
        answer: the method.
        frame: of the item.
        instances: (X, Y, Z) true ids on the item's own grid, -1 unknown.
        item_id: seeds the clicks, with the object.
        most: number of objects at most.
        min_voxels: least size of an object.
        progress: called with (sessions done, sessions in all).
    """
    ids = frame.labels_to_network(instances, whole_box(frame.network_shape))
    known = ids >= 0
    objects = clickable_objects(ids, min_voxels, most)
    for done, instance in enumerate(objects, 1):
        truth = ids == instance
        clicks, quality = simulate_clicks(
            answer,
            truth,
            known,
            frame.network_voxel_size_nm,
            seeded_generator(item_id, instance),
        )
        if progress is not None:
            progress(done, len(objects))
        yield Session(instance, truth, clicks, quality)
