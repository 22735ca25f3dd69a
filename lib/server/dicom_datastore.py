"""A DICOMweb store as MONAI Label's datastore: its mirror is a study folder like any other.

Series become study items in a cache folder, where every part of the app finds them; labels go
to the store as SEG and come back from it, also those that OHIF or others stored. The stock
datastore cannot read back what it stored, and downloads a program to write it.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from fastapi import HTTPException

from lib.dicom.labels import labels_to_segments, segments_to_labels
from lib.dicom.seg import write_seg
from lib.dicom.seg_read import read_seg
from lib.dicom.series import private_record
from lib.labels.hierarchy import LabelHierarchy
from lib.server.datastore import StudyDatastore
from lib.server.dicom_client import RemoteStore, StoredLabel, StoredSeries
from lib.server.dicom_labels import StoreState, apply_own_label, write_submission
from lib.volumes.nifti import UNIT_NM
from lib.volumes.record import ItemRecord
from lib.volumes.study import Study
from lib.volumes.writing import write_item

logger = logging.getLogger("neuropil.dicom")

LIST_SECONDS = 10.0
"""How long the store's list of series is taken as it was."""
MIRROR_SECONDS = 30.0
"""How often the store is asked for new series and labels."""
UNREACHABLE = (requests.RequestException, OSError)


class DicomStudyDatastore(StudyDatastore):
    """The mirror of a DICOMweb store.

    Args:
        store: the store.
        root: cache folder of this store.
        submit: as for StudyDatastore.
        hierarchy: what label values mean.
        spacing_unit: what a series' millimetres mean where our export did not say it.
        mirror: fetch everything in the background; without it, images when asked for.
    """

    def __init__(
        self,
        store: RemoteStore,
        root: str,
        submit: Callable[[str, Path, dict[str, Any]], dict[str, dict[str, Any]]],
        hierarchy: LabelHierarchy,
        spacing_unit: str,
        *,
        mirror: bool,
        **more: Any,
    ) -> None:
        self._store, self._hierarchy, self._spacing_unit = store, hierarchy, spacing_unit
        self._listed: tuple[float, dict[str, StoredSeries]] = (0.0, {})
        self._locks: dict[str, threading.Lock] = {}
        self._sync_lock, self._send_lock = threading.Lock(), threading.Lock()
        self._state = StoreState(Path(root))
        super().__init__(root, submit, **more)
        if mirror:
            threading.Thread(target=self._mirror, name="dicom-mirror", daemon=True).start()

    def name(self) -> str:
        """The store's address."""
        return self._store.address

    def list_images(self) -> list[str]:
        """The series of the store that the search filter lets through."""
        return sorted(self._series())

    def get_labeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Listed images with a final label."""
        listed = set(self.list_images())
        return [i for i in super().get_labeled_images(label_tag, labels) if i in listed]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Listed images without one, also those not fetched yet."""
        done = set(self.get_labeled_images(label_tag, labels))
        return [i for i in self.list_images() if i not in done]

    def get_image_uri(self, image_id: str) -> str:
        """The image as a file of the mirror; fetched where it is not there yet."""
        self.fetch(image_id)
        return str(super().get_image_uri(image_id))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What viewers show of a series, and what its record knows."""
        series = self._series().get(image_id)
        return {**(series.info if series else {}), **super().get_image_info(image_id)}

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The label as a file of the mirror; the store is asked where there is none."""
        path = super().get_label_uri(label_id, label_tag)
        if not path and label_tag in ("final", "instance"):
            self.sync_labels()
            path = super().get_label_uri(label_id, label_tag)
        return str(path)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Labelled images, after asking the store for new labels."""
        self.sync_labels()
        return list(super().datalist(full_path))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label in the mirror; a submission also goes to the store as a SEG."""
        self.fetch(image_id)
        saved = super().save_label(image_id, label_filename, label_tag, label_info)
        if label_tag == "final":
            self._state.mark_unsent(image_id)
            self._send_unsent()
        return str(saved)

    def fetch(self, image_id: str) -> None:
        """Bring a series into the mirror, once.

        Raises:
            ValueError: the store has no such series, or its sections form no grid.
        """
        with self._guard:
            lock = self._locks.setdefault(image_id, threading.Lock())
        with lock:
            if image_id in self._datastore.objects:
                return
            series = self._series().get(image_id) or self._store.series(image_id)
            volume = self._store.volume(series)
            first = volume.first()
            record = self._record(image_id, series, volume.grid.spacing_mm, first)
            logger.info("fetching %s, %s voxels", image_id, volume.shape)
            write_item(Path(self._datastore_path), record, self._hierarchy, volume)
            self.refresh()
            self.update_image_info(image_id, dict(series.info))

    def sync_labels(self) -> None:
        """Take in labels of the store that are new, oldest first; send what was not sent."""
        with self._sync_lock:
            try:
                labels = self._store.labels()
            except UNREACHABLE as error:
                logger.warning("%s does not answer: %s", self._store.address, error)
                return
            listed = self._series()
            for image_id in sorted({label.image_uid for label in labels} & set(listed)):
                self._take_labels([la for la in labels if la.image_uid == image_id])
        self._send_unsent()

    def _take_labels(self, labels: list[StoredLabel]) -> None:
        """Labels of one image: our own hold everything said before them, so start at the last."""
        own = [n for n, label in enumerate(labels) if label.own]
        for label in labels[own[-1] if own else 0 :]:
            uid = label.series.uid
            if self._state.knows(uid):
                continue
            try:
                self._take_label(label)
                self._state.mark_read(uid, label.image_uid)
            except (ValueError, HTTPException) as error:
                logger.warning("SEG %s is left alone: %s", uid, error)
                self._state.mark_refused(uid, str(error))
            except UNREACHABLE as error:
                logger.warning("SEG %s cannot be fetched now: %s", uid, error)
                return

    def _take_label(self, label: StoredLabel) -> None:
        image_id = label.image_uid
        self.fetch(image_id)
        grid = self._store.volume(self._store.series(image_id)).grid
        seg = read_seg(self._store.segmentation(label), grid)
        info = {"SeriesInstanceUID": label.series.uid, "source": "DICOM SEG"}
        canonical = segments_to_labels(seg, self._hierarchy)
        if canonical is not None:
            item = self.study().item(image_id)
            self.note_labels(image_id, apply_own_label(item, *canonical, info))
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stored.seg.nrrd"
            segments = write_submission(path, seg, self.study().item(image_id))
            told = {**info, "label_info": segments}
            super().save_label(image_id, str(path), "final", told)

    def _send_unsent(self) -> None:
        with self._send_lock:
            for image_id, change in self._state.unsent().items():
                try:
                    sent = self._send(image_id)
                except UNREACHABLE as error:
                    logger.warning("label of %s is not in the store yet: %s", image_id, error)
                    return
                self._state.mark_sent(image_id, change, sent)

    def _send(self, image_id: str) -> str | None:
        """Store an image's labels; the SEG's UID, or None where nothing is known yet."""
        item = self.study().item(image_id)
        ids = item.read_instances() if item.has_label("instance") else None
        made = labels_to_segments(item.read_class_sets(), ids, self._hierarchy)
        if not made.segments:
            return None
        if made.left_out:
            logger.warning("label of %s: %s; the store gets classes only", image_id, made.left_out)
        note = made.note | {"fully_annotated": item.record.fully_annotated}
        grid = self._store.volume(self._store.series(image_id)).grid
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.dcm"
            uid = write_seg(path, made.labels, made.segments, grid, note=note)
            self._store.store(path)
        self.update_label_info(image_id, "final", {"SeriesInstanceUID": uid})
        return uid

    def study(self) -> Study:
        """The mirror as a study."""
        return Study(self._datastore_path, self._hierarchy, self._spacing_unit)

    def _record(
        self,
        image_id: str,
        series: StoredSeries,
        spacing: tuple[float, float, float],
        first: Any,
    ) -> ItemRecord:
        """Our export's record, or one from what the series says of itself."""
        told = private_record(first)
        if told is not None:
            name = told.get("id", series.info["PatientID"])
            return ItemRecord.from_dict({**told, "id": image_id, "exported_id": name})
        x, y, z = (v * UNIT_NM[self._spacing_unit] for v in spacing)
        return ItemRecord(image_id, (x, y, z), source={"dataset": series.info["PatientID"]})

    def _series(self) -> dict[str, StoredSeries]:
        when, series = self._listed
        if time.monotonic() - when < LIST_SECONDS and series:
            return series
        try:
            series = {s.uid: s for s in self._store.images()}
        except UNREACHABLE as error:
            logger.warning("%s does not answer: %s", self._store.address, error)
        self._listed = (time.monotonic(), series)
        return series

    def _mirror(self) -> None:
        while True:
            self.sync_labels()
            for image_id in self.list_images():
                try:
                    self.fetch(image_id)
                except (ValueError, *UNREACHABLE) as error:
                    logger.warning("series %s is not mirrored: %s", image_id, error)
            time.sleep(MIRROR_SECONDS)
