"""A DICOMweb store as this app needs it: series found, sections read lazily, labels stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicomweb_client import DICOMwebClient
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lib.dicom.export import MANUFACTURER
from lib.dicom.seg_read import referenced_series
from lib.dicom.series import SeriesGrid, series_grid, stored_section, volume_dtype

logger = logging.getLogger("neuropil.dicom")

PIXEL_DATA = "7FE00010"
INFO_TAGS = (
    "StudyDate", "StudyTime", "Modality", "RetrieveURL", "PatientID", "StudyInstanceUID",
)  # fmt: skip
"""What OHIF's "next sample" shows, and by which it opens a study."""


@dataclass(frozen=True)
class StoredSeries:
    """A series of the store.

    Args:
        uid: SeriesInstanceUID; an image's id in the datastore.
        study_uid: StudyInstanceUID.
        info: INFO_TAGS as text, for viewers.
    """

    uid: str
    study_uid: str
    info: dict[str, str]


@dataclass(frozen=True)
class StoredLabel:
    """A segmentation of the store.

    Args:
        image_uid: the series it was drawn on.
        when: content date and time, by which labels are ordered.
        own: written by this app.
    """

    series: StoredSeries
    image_uid: str
    when: str
    own: bool


class RemoteVolume:
    """The voxels of a series, (X, Y, Z), fetched section by section when sliced."""

    def __init__(self, client: DICOMwebClient, study_uid: str, grid: SeriesGrid) -> None:
        self._client, self._study_uid, self.grid = client, study_uid, grid

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in x, y, z."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return volume_dtype(self.grid)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        x, y, z = index
        sections = [self._section(k)[x, y] for k in range(*z.indices(self.shape[2]))]
        return np.stack(sections, axis=2)

    def first(self) -> Dataset:
        """The whole first section, with private elements, which metadata may lack."""
        return self._fetch(0)

    def _section(self, k: int) -> NDArray[Any]:
        return stored_section(self._fetch(k), self.dtype)

    def _fetch(self, k: int) -> Dataset:
        uid = str(self.grid.headers[k].SOPInstanceUID)
        return self._client.retrieve_instance(self._study_uid, self.grid.series_uid, uid)


class RemoteStore:
    """The store behind a DICOMweb address.

    Args:
        client: speaks DICOMweb.
        search_filter: which series are images: tag -> value, or a list of values of which
            one must hold ({"Modality": ["CT", "OT"]}).
    """

    def __init__(self, client: DICOMwebClient, search_filter: Mapping[str, Any]) -> None:
        self.client = client
        self.search_filter = dict(search_filter)
        self._labels: dict[str, StoredLabel | None] = {}  # a stored SEG never changes

    @property
    def address(self) -> str:
        """Where the store is, as URL."""
        return str(self.client.base_url)

    def images(self) -> list[StoredSeries]:
        """The series that the filter lets through; segmentations never are images."""
        found: dict[str, StoredSeries] = {}
        for query in alternatives(self.search_filter):
            for series in self._search(query):
                if series.info["Modality"] != "SEG":
                    found[series.uid] = series
        return [found[uid] for uid in sorted(found)]

    def series(self, uid: str) -> StoredSeries:
        """One series.

        Raises:
            ValueError: the store has none of this UID.
        """
        for series in self._search({"SeriesInstanceUID": uid}):
            if series.uid == uid:
                return series
        raise ValueError(f"{self.address}: no series {uid}")

    def labels(self) -> list[StoredLabel]:
        """All segmentations that say which series they were drawn on, oldest first."""
        for series in self._search({"Modality": "SEG"}):
            if series.uid not in self._labels:
                self._labels[series.uid] = self._label(series)
        found = [label for label in self._labels.values() if label is not None]
        return sorted(found, key=lambda label: (label.when, label.series.uid))

    def _label(self, series: StoredSeries) -> StoredLabel | None:
        header = self._headers(series)[0]
        image = referenced_series(header)
        if image is None:
            logger.warning("SEG %s names no image series; left alone", series.uid)
            return None
        when = f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
        own = str(header.get("Manufacturer", "")) == MANUFACTURER
        return StoredLabel(series, image, when, own)

    def volume(self, series: StoredSeries) -> RemoteVolume:
        """The voxels of an image series, lazily.

        Raises:
            ValueError: its sections form no grid.
        """
        grid = series_grid(self._headers(series))
        return RemoteVolume(self.client, series.study_uid, grid)

    def segmentation(self, label: StoredLabel) -> Dataset:
        """The one instance of a SEG series."""
        header = self._headers(label.series)[0]
        return self.client.retrieve_instance(
            label.series.study_uid, label.series.uid, str(header.SOPInstanceUID)
        )

    def store(self, path: Path) -> None:
        """Send a file to the store.

        Raises:
            OSError: the store did not take it.
        """
        answer = self.client.store_instances([pydicom.dcmread(path)])
        if failed := answer.get("FailedSOPSequence"):
            reason = failed[0].get("FailureReason", "unknown")
            raise OSError(f"{self.address} refused {path.name}: failure reason {reason}")

    def _search(self, query: Mapping[str, Any]) -> list[StoredSeries]:
        fields = ["StudyInstanceUID", "Modality", "PatientID", "StudyDate", "StudyTime"]
        answers = self.client.search_for_series(
            search_filters=dict(query), fields=fields, get_remaining=True
        )
        return [_stored_series(Dataset.from_json(answer)) for answer in answers]

    def _headers(self, series: StoredSeries) -> Sequence[Dataset]:
        answers = self.client.retrieve_series_metadata(series.study_uid, series.uid)
        if not answers:
            raise ValueError(f"{self.address}: series {series.uid} is empty")
        for answer in answers:
            answer.pop(PIXEL_DATA, None)  # a reference to it, of no use here
        return [Dataset.from_json(answer) for answer in answers]


def alternatives(search_filter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A filter with lists of values as filters with one value each."""
    queries: list[dict[str, Any]] = [{}]
    for tag, value in search_filter.items():
        values = value if isinstance(value, list) else [value]
        queries = [query | {tag: one} for query in queries for one in values]
    return queries


def _stored_series(dataset: Dataset) -> StoredSeries:
    info = {tag: str(dataset[tag].value) if tag in dataset else "" for tag in INFO_TAGS}
    uid = str(dataset.SeriesInstanceUID)
    info["SeriesInstanceUID"] = uid
    return StoredSeries(uid, info["StudyInstanceUID"], info)
