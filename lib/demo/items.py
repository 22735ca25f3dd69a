"""Synthetic neuropil as study items, annotated fully, in part or not at all."""

from __future__ import annotations

from typing import Any

from lib.labels.hierarchy import LabelHierarchy, load_hierarchy
from lib.synthetic.generate import generate
from lib.synthetic.partial import PARTIAL, Annotation, annotate
from lib.volumes.record import SYNTHETIC
from lib.volumes.study import Study


def annotation_kinds(items: int, partial: float) -> list[Annotation]:
    """How each item is annotated: the first ones fully, the rest by turns."""
    full = items - round(partial * items)
    return ["full" if i < full else PARTIAL[(i - full) % len(PARTIAL)] for i in range(items)]


def write_synthetic_item(
    study: Study,
    item_id: str,
    shape: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    seed: int,
    kind: Annotation = "full",
    **record_fields: Any,
) -> None:
    """Generate one volume and add it to a study.

    Args:
        study: of the default hierarchy.
        record_fields: further fields of the item's record, such as `split`.

    Raises:
        ValueError: see `generate` and `Study.add_item`.
    """
    _check_default(study.hierarchy)
    volume = generate(shape, voxel_size_nm, seed)
    labels = annotate(volume, study.hierarchy, kind, seed)
    class_sets, instance = labels if labels is not None else (None, None)
    study.add_item(
        item_id,
        volume.image,
        volume.voxel_size_nm,
        class_sets,
        instance,
        source={"path": f"{SYNTHETIC}, seed {seed}", "shape": list(shape)},
        fully_annotated=kind == "full",
        **record_fields,
    )


def _check_default(hierarchy: LabelHierarchy) -> None:
    if hierarchy.class_names != load_hierarchy().class_names:
        raise ValueError(
            "synthetic neuropil has the default hierarchy's classes; this study has "
            f"{', '.join(hierarchy.class_names)}. Use labels.hierarchy: default"
        )
