"""Import a volume, or parts of it, into a study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lib.volumes.boxes import Box, box_origin, box_shape, shift_box
from lib.volumes.errors import disk_error
from lib.volumes.import_labels import without_unlabelled
from lib.volumes.import_plan import ImportPlan, ImportRequest, PlannedItem
from lib.volumes.label_views import LabelViews, image_view
from lib.volumes.readers.region import RegionOf, volume_contrast
from lib.volumes.readers.remote import is_remote
from lib.volumes.regions import add_region
from lib.volumes.source import SourceInfo
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import LabelCounts, Progress


def import_items(
    plan: ImportPlan, study: Study, progress: Progress | None = None
) -> list[tuple[StudyItem, LabelCounts]]:
    """Write the planned items.

    Returns:
        The items with the counts of their labels.

    Raises:
        VolumeError: damaged or impossible values, or a full disk. Items written before the
            fault stay; the one at fault leaves nothing behind.
    """
    try:
        if plan.request.lazy:
            return _import_regions(plan, study, progress)
        return [_import_item(plan, item, study, progress) for item in plan.items]
    except OSError as error:
        # Sources raise VolumeError when reading fails: this is the study's side.
        raise disk_error(study.root, error) from error
    finally:
        plan.close()


def _import_regions(
    plan: ImportPlan, study: Study, progress: Progress | None
) -> list[tuple[StudyItem, LabelCounts]]:
    """Items that are boxes of the source; only the contrast window is read, once for all."""
    info, request, made = plan.image.info, plan.request, []
    contrast = volume_contrast(plan.image)
    path = info.path if is_remote(info.path) else str(Path(info.path).absolute())
    a, b, c = info.origin
    for item in plan.items:
        box = shift_box(item.box, (-a, -b, -c))
        region = RegionOf(path, info.dataset, box, plan.voxel_size_nm, contrast)
        added = add_region(
            study, item.item_id, region, replace=request.replace,
            origin_voxels=box_origin(item.box), source={**_source(plan), "path": path},
            split=item.split, fully_annotated=request.fully_annotated,
            bright_membranes=request.bright_membranes,
        )  # fmt: skip
        voxels = math.prod(box_shape(box))
        made.append((added, LabelCounts(voxels=voxels)))
        if progress is not None:
            progress(voxels)
    return made


def _source(plan: ImportPlan) -> dict[str, Any]:
    """Where items come from, for their records."""
    info = plan.image.info
    return {
        "path": info.path, "dataset": info.dataset, "shape": list(info.shape),
        "origin": list(info.origin), **_placed(info),
    }  # fmt: skip


def _import_item(
    plan: ImportPlan, item: PlannedItem, study: Study, progress: Progress | None
) -> tuple[StudyItem, LabelCounts]:
    info, request = plan.image.info, plan.request
    a, b, c = info.origin
    box = shift_box(item.box, (-a, -b, -c))
    values = plan.values
    if plan.semantic is not None and values is not None and _completes(request):
        values = without_unlabelled(values, plan.semantic, box, study.hierarchy)
    views = LabelViews(
        study.hierarchy, box, plan.semantic, values, plan.instance, request.fully_annotated,
        info.origin, plan.unknown_sections(),
    )  # fmt: skip
    labelled = plan.semantic is not None or plan.instance is not None
    return study.add_item(
        item.item_id,
        image_view(plan.image, box),
        plan.voxel_size_nm,
        views.class_sets() if labelled else None,
        views.instances(),
        uncertain=views.uncertain() if labelled else None,
        replace=request.replace,
        progress=progress,
        chunk_depth=info.chunk_depth,
        origin_voxels=box_origin(item.box),
        source=_source(plan),
        fully_annotated=request.fully_annotated,
        split=item.split,
        bright_membranes=request.bright_membranes,
        extra=_extra(plan, box),
        true_instances=request.true_instances and plan.instance is not None,
    )  # fmt: skip


def _placed(info: SourceInfo) -> dict[str, Any]:
    """Where the source's first voxel lies in physical space, if it says so."""
    return {} if info.offset_nm is None else {"offset_nm": list(info.offset_nm)}


def _extra(plan: ImportPlan, box: Box) -> dict[str, Any]:
    """What the record says of sections that the source lacks, counted in the item."""
    low, high = box[2]
    lacking = [z - low for z in plan.image.info.missing_sections if low <= z < high]
    return {"missing_sections": lacking} if lacking else {}


def _completes(request: ImportRequest) -> bool:
    """Whether "no label" says something: a mapping file states itself what is unknown."""
    return request.fully_annotated and request.encoding == "canonical" and not request.mapping
