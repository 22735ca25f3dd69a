"""Labels from viewers: kept as they came, and canonical labels derived from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lib.annotation.deriving import Derived
from lib.annotation.submissions import (
    SUFFIXES,
    Prepared,
    SubmissionOptions,
    Version,
    prepare_labels,
    recover,
    submit,
)
from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import check_mapping
from lib.server.errors import refuse
from lib.server.isolated import Isolated, Limits, WorkerStoppedError
from lib.server.regions import region
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

FREE_BYTES = 512 * 2**20
BYTES_PER_VOXEL = 200
SECONDS_PER_VOXEL = 2e-6
"""What deriving may take for a voxel of the image, beside what is free; files of many layers and
of wide types need most of it."""

READ_KEYS = {"label_info", "fully_annotated", "roi", "mode"}
MODES = ("replace", "merge")


class Submissions:
    """Takes the labels that annotators submit to one study.

    Params of a submission: `label_info` [{name, idx}, ...] as Slicer sends it,
    `fully_annotated` (unpainted voxels are none of the painted classes), `roi`
    [i0, i1, j0, j1, k0, k1] (only this part was annotated), `mode` "replace" or "merge".

    Args:
        root: the study folder.
        hierarchy: the classes.
        settings: of the server; `labels.segment_names` maps a lab's own names.

    Raises:
        ValueError: such a name is mapped to what is no class, group or "uncertain".
    """

    def __init__(self, root: Path, hierarchy: LabelHierarchy, settings: Settings) -> None:
        self.study = Study(root, hierarchy, settings.data.spacing_unit)
        self.mapping = settings.labels.segment_names
        self._seconds = settings.server.submission_seconds
        self._worker = Isolated(prepare_labels, workers=2)
        check_mapping(self.mapping, hierarchy, "labels.segment_names")

    def recover(self) -> list[str]:
        """Derive what was submitted to a server that was killed before it could."""
        self._worker.start()
        return recover(self.study, self.mapping, self.prepare)

    def prepare(
        self, study: Study, item_id: str, version: Version, mapping: Mapping[str, str]
    ) -> Prepared:
        """Derive a version's labels in a process of its own, within limits of time and memory.

        Raises:
            ValueError: what the upload got wrong, or that it goes beyond the limits.
        """
        voxels = prod(study.item(item_id).shape)
        limits = Limits(
            self._seconds + SECONDS_PER_VOXEL * voxels, FREE_BYTES + BYTES_PER_VOXEL * voxels
        )
        try:
            return self._worker.within(limits, study, item_id, version, mapping)
        except WorkerStoppedError as error:
            raise VolumeError(
                version.file, f"no labels could be derived from it ({error})"
            ) from None
        except MemoryError as error:
            most = (limits.bytes or 0) >> 20
            raise VolumeError(
                version.file, f"deriving labels from it takes more than {most} MiB ({error})"
            ) from None

    def __call__(
        self, image_id: str, file: Path, info: dict[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Keep a submission and derive labels.

        Returns:
            Info of the labels that exist now, by tag.

        Raises:
            HTTPException, ValueError: a submission that explains nothing; it is kept.
        """
        options = self._options(image_id, info)
        label_info = segments_of(info)
        derived = submit(
            self.study, image_id, file, label_info, options, self.mapping, prepare=self.prepare
        )
        return self._told(image_id, info, derived)

    def _options(self, image_id: str, info: dict[str, Any]) -> SubmissionOptions:
        fully = info.get("fully_annotated")
        if fully is not None and not isinstance(fully, bool):
            raise refuse(f"fully_annotated: expected true or false, found {fully!r}")
        mode = info.get("mode", "replace")
        if mode not in MODES:
            raise refuse(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
        roi = region(info.get("roi"), self.study.item(image_id).shape)
        params = {key: value for key, value in info.items() if key not in READ_KEYS}
        return SubmissionOptions(fully, roi, mode, params)

    def _told(
        self, image_id: str, info: dict[str, Any], derived: Derived
    ) -> dict[str, dict[str, Any]]:
        common = {"ts": int(time.time()), "client_id": info.get("client_id")}
        item = self.study.item(image_id)
        told: dict[str, dict[str, Any]] = {}
        for tag in ("final", "instance"):
            if item.has_label(tag):
                told[tag] = {**common, "name": item.label_path(tag).name}
        told["final"] |= {"known_share": derived.known_share, "notes": derived.notes}
        told["instance"] |= {"objects": len(derived.objects)}
        folder = self.study.root / "labels" / "submitted"
        for suffix in SUFFIXES:
            if (folder / f"{image_id}{suffix}").exists():
                raw = {"name": f"{image_id}{suffix}", "label_info": info.get("label_info")}
                told["submitted"] = {**common, **raw}
                break
        return told


def segments_of(info: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The `label_info` of a submission; None where the file names its own segments.

    Raises:
        HTTPException: 400 for what is no list of objects.
    """
    value = info.get("label_info")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise refuse("label_info: expected a list of {name, idx}")
    return list(value)
