"""Labels on their way between a DICOM store and the mirror's study folder."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from lib.dicom.seg_read import Segmentation
from lib.labels.encodings import class_sets_to_final
from lib.volumes.atomic import StagedFiles, json_bytes, write_json
from lib.volumes.disk_ids import to_disk_ids
from lib.volumes.record import record_path
from lib.volumes.study import TOUCHED, StudyItem
from lib.volumes.writing import LabelCounts, label_file, write_label

STATE_FILE = ".dicom_store.json"


class StoreState:
    """What this mirror has exchanged with its store; survives restarts.

    Args:
        root: the mirror's folder.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / STATE_FILE
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"read": {}, "refused": {}, "unsent": {}}
        if self._path.exists():
            self._state |= json.loads(self._path.read_text())

    def knows(self, seg_uid: str) -> bool:
        """Whether a SEG has been read, written or refused here."""
        return seg_uid in self._state["read"] or seg_uid in self._state["refused"]

    def mark_read(self, seg_uid: str, image_id: str) -> None:
        """A SEG's content is in the mirror."""
        with self._lock:
            self._state["read"][seg_uid] = image_id
            self._write()

    def mark_refused(self, seg_uid: str, reason: str) -> None:
        """A SEG cannot be used; it is not tried again."""
        with self._lock:
            self._state["refused"][seg_uid] = reason
            self._write()

    def mark_unsent(self, image_id: str) -> None:
        """An image's labels are newer than the store's."""
        with self._lock:
            self._state["unsent"][image_id] = self._state["unsent"].get(image_id, 0) + 1
            self._write()

    def mark_sent(self, image_id: str, change: int, seg_uid: str | None) -> None:
        """The store has an image's labels as they were at a change, as this SEG.

        Args:
            change: from `unsent`; what has changed since then stays to be sent.
        """
        with self._lock:
            if self._state["unsent"].get(image_id) == change:
                del self._state["unsent"][image_id]
            if seg_uid is not None:
                self._state["read"][seg_uid] = image_id
            self._write()

    def unsent(self) -> dict[str, int]:
        """Images whose labels the store has not got, and the number of the last change."""
        with self._lock:
            return dict(self._state["unsent"])

    def _write(self) -> None:
        write_json(self._path, self._state)


def apply_own_label(
    item: StudyItem,
    class_sets: NDArray[np.int32],
    instances: NDArray[np.int64] | None,
    info: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Put canonical labels into the study, all of them or none.

    Returns:
        Label tag -> info for the datastore's index.
    """
    root, hierarchy, record = item.study.root, item.study.hierarchy, item.record
    final, table = class_sets_to_final(class_sets, hierarchy, record.class_sets)
    sets, voxels = np.unique(class_sets, return_counts=True)
    counts = LabelCounts(
        sets=dict(zip(sets.tolist(), voxels.tolist(), strict=True)), voxels=class_sets.size
    )
    maps: dict[str, NDArray[Any]] = {"final": final}
    if instances is not None:
        maps["instance"] = to_disk_ids(instances)
    with StagedFiles() as staged:
        for tag, values in maps.items():
            write_label(staged, label_file(root, tag, item.id), values, record.voxel_size_nm)
        record = record.changed(class_sets=table, known_share=counts.shares(hierarchy))
        staged.create(record_path(root, item.id)).write(json_bytes(record.to_dict()))
        staged.commit()
    item.label_path(TOUCHED).unlink(missing_ok=True)  # what comes from a store was decided
    return {tag: {**info, "name": label_file(root, tag, item.id).name} for tag in maps}


def write_submission(path: Path, seg: Segmentation, item: StudyItem) -> list[dict[str, Any]]:
    """Write a SEG of another program as what Slicer would submit: a .seg.nrrd file.

    Returns:
        The segments as Slicer lists them: [{"name", "idx"}, ...].
    """
    layers = np.stack(seg.layers)
    header: OrderedDict[str, Any] = OrderedDict()
    header["space"] = "right-anterior-superior"
    header["kinds"] = ["list", "domain", "domain", "domain"]
    header["space directions"] = np.vstack([[np.nan] * 3, np.diag(item.voxel_size_nm)])
    header["space origin"] = np.zeros(3)
    header["encoding"] = "gzip"
    shape = layers.shape[1:]
    for n, segment in enumerate(seg.segments):
        color = segment.color or (128, 128, 128)
        header |= {
            f"Segment{n}_ID": f"Segment_{n + 1}",
            f"Segment{n}_Name": segment.label,
            f"Segment{n}_Color": " ".join(f"{c / 255:.6f}" for c in color),
            f"Segment{n}_LabelValue": str(segment.value),
            f"Segment{n}_Layer": str(segment.layer),
            f"Segment{n}_Extent": f"0 {shape[0] - 1} 0 {shape[1] - 1} 0 {shape[2] - 1}",
        }
    nrrd.write(str(path), layers, header, index_order="F", compression_level=1)
    return [{"name": s.label, "idx": n} for n, s in enumerate(seg.segments, 1)]
