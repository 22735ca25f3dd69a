"""The mirror of a DICOM store: images and labels come in, labels go out, fresh mirrors agree."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from pydicom.dataset import Dataset

from lib.configs.load import load_settings
from lib.dicom.export import SeriesIdentity, export_series
from lib.dicom.seg import Segment, write_seg
from lib.dicom.series import read_headers
from lib.labels.hierarchy import load_hierarchy
from lib.server.dicom_client import RemoteStore, alternatives
from lib.server.dicom_datastore import DicomStudyDatastore
from lib.server.submissions import Submissions
from lib.volumes.study import StudyItem

HIERARCHY = load_hierarchy()
SHAPE = (8, 6, 5)
VOXEL_NM = (4.0, 5.0, 40.0)


class FakeClient:
    """A DICOMweb store in memory; metadata comes as JSON without private elements."""

    base_url = "http://store/dicom-web"

    def __init__(self) -> None:
        self.instances: dict[str, bytes] = {}
        self.down = False

    def put(self, path: Path) -> None:
        self.store_instances([pydicom.dcmread(path)])

    def _all(self) -> list[Dataset]:
        if self.down:
            raise requests.ConnectionError("down")
        return [pydicom.dcmread(io.BytesIO(data)) for data in self.instances.values()]

    def search_for_series(self, search_filters: dict[str, Any], **_: Any) -> list[Any]:
        found = {}
        for ds in self._all():
            if all(str(ds[k].value) == str(v) for k, v in search_filters.items()):
                answer = Dataset()
                for tag in ("SeriesInstanceUID", "StudyInstanceUID", "Modality", "PatientID"):
                    answer[tag] = ds[tag]
                found[ds.SeriesInstanceUID] = answer.to_json_dict()
        return list(found.values())

    def retrieve_series_metadata(self, study: str, series: str) -> list[Any]:
        answers = []
        for ds in self._all():
            if ds.SeriesInstanceUID == series:
                ds.remove_private_tags()
                del ds.PixelData
                answers.append(ds.to_json_dict())
        return answers[::-1]

    def retrieve_instance(self, study: str, series: str, sop: str) -> Dataset:
        return next(ds for ds in self._all() if ds.SOPInstanceUID == sop)

    def store_instances(self, datasets: list[Dataset]) -> Dataset:
        if self.down:
            raise requests.ConnectionError("down")
        for ds in datasets:
            buffer = io.BytesIO()
            ds.save_as(buffer, write_like_original=False)
            self.instances[ds.SOPInstanceUID] = buffer.getvalue()
        return Dataset()


def _voxels(path: Path) -> bytes:
    return bytes(np.asanyarray(nib.load(path).dataobj).tobytes())


def store_foreign(
    lab: Lab,
    series: SeriesIdentity,
    values: np.ndarray,
    names: Sequence[str],
    second: np.ndarray | None = None,
) -> None:
    """Put a SEG of another program into the store; `second` becomes an overlapping organelle."""
    grid = read_headers(series.files[0].parent)
    path = lab.folder / "theirs.dcm"
    write_seg(path, values, [Segment(n, name) for n, name in enumerate(names, 1)], grid)
    theirs = pydicom.dcmread(path)
    if second is not None:
        write_seg(path, second, [Segment(1, "organelle")], grid)
        more = pydicom.dcmread(path)
        more.SegmentSequence[0].SegmentNumber = 2
        second_segment = Dataset()
        second_segment.ReferencedSegmentNumber = 2
        for frame in more.PerFrameFunctionalGroupsSequence:  # newer highdicom shares it
            frame.SegmentIdentificationSequence = [second_segment]
        stack = np.concatenate([theirs.pixel_array, more.pixel_array]).astype(np.uint8)
        theirs.SegmentSequence.extend(more.SegmentSequence)
        theirs.PerFrameFunctionalGroupsSequence.extend(more.PerFrameFunctionalGroupsSequence)
        theirs.NumberOfFrames = len(stack)
        theirs.PixelData = np.packbits(stack.ravel(), bitorder="little").tobytes()
    theirs.Manufacturer = "another program"
    theirs.remove_private_tags()
    lab.client.store_instances([theirs])


class Lab:
    """A store, and servers that mirror it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.client = folder, FakeClient()

    def add_image(self, name: str, modality: str = "CT") -> tuple[SeriesIdentity, np.ndarray]:
        image = np.random.default_rng(len(name)).integers(0, 255, SHAPE).astype(np.uint8)
        series = export_series(
            image, self.folder / name, item_id=name, voxel_size_nm=VOXEL_NM, window=(0.0, 255.0),
            modality=modality, record={"split": "train"},
        )  # fmt: skip
        for path in series.files:
            self.client.put(path)
        return series, image

    def server(self, cache: str, search: dict[str, Any] | None = None) -> DicomStudyDatastore:
        store = RemoteStore(self.client, search or {"Modality": "CT"})  # type: ignore[arg-type]
        root = self.folder / cache
        submissions = Submissions(root, HIERARCHY, load_settings())
        return DicomStudyDatastore(store, str(root), submissions, HIERARCHY, "nm", mirror=False)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


NAMES = ("axon 17", "organelle", "glia")


def drawn() -> np.ndarray:
    """What an annotator paints: NAMES as 1, 2, 3."""
    values = np.zeros(SHAPE, np.uint8)
    values[1:4, 1:3, 1:3] = 1
    values[5:7, 2:5, 2:4] = 2
    values[0, 0, :] = 3
    return values


def submit(server: DicomStudyDatastore, uid: str, folder: Path) -> None:
    """As Slicer does."""
    file = folder / "label.nii.gz"
    nib.save(nib.Nifti1Image(drawn(), np.diag([*VOXEL_NM, 1])), file)
    listed = [{"name": name, "idx": n} for n, name in enumerate(NAMES, 1)]
    server.save_label(uid, str(file), "final", {"label_info": listed, "client_id": "ann"})


def check_labels(item: StudyItem, values: np.ndarray) -> None:
    """Each painted voxel is what its segment's name says; the others are unknown."""
    sets, ids = item.read_class_sets(), item.read_instances()
    meant = [HIERARCHY.unknown, *(HIERARCHY.set_named(n) for n in ("axon", "organelle", "glia"))]
    np.testing.assert_array_equal(sets, np.array(meant)[values])
    objects = np.unique(ids[values == 1])
    assert len(objects) == 1 and objects[0] > 0
    assert not (ids[values != 1] == objects[0]).any()


def test_an_image_is_fetched_when_asked_for_and_keeps_its_record(lab: Lab) -> None:
    series, image = lab.add_image("piece")
    server = lab.server("cache")
    uid = series.series_uid
    assert server.list_images() == [uid] == server.get_unlabeled_images()
    info = server.get_image_info(uid)
    assert info["StudyInstanceUID"] == series.study_uid, "OHIF opens the next sample by it"
    assert not list((lab.folder / "cache").glob("*.nii")), "asking for a list fetches nothing"
    path = Path(server.get_image_uri(uid))
    assert path.name == f"{uid}.nii"
    item = server.study().item(uid)
    np.testing.assert_array_equal(item.open_image()[:, :, :], image)
    assert item.voxel_size_nm == VOXEL_NM
    assert item.record.split == "train"
    assert item.record.extra["exported_id"] == "piece"
    assert server.get_image_info(uid)["PatientID"] == "piece"


def test_submitted_labels_reach_a_server_with_a_fresh_cache(lab: Lab) -> None:
    uid = lab.add_image("piece")[0].series_uid
    submit(lab.server("one"), uid, lab.folder)
    fresh = lab.server("two")
    assert [Path(d["image"]).name for d in fresh.datalist()] == [f"{uid}.nii"]
    assert fresh.get_labeled_images() == [uid] and fresh.get_unlabeled_images() == []
    item = fresh.study().item(uid)
    check_labels(item, drawn())
    sent = lab.folder / "one" / "labels"
    for tag in ("final", "instance"):
        assert _voxels(item.label_path(tag)) == _voxels(sent / tag / item.label_path(tag).name)
    assert Path(fresh.get_label_uri(uid, "final")).exists()
    assert item.record.known_share["axon"] > 0


def test_a_label_comes_once_and_newer_ones_follow(lab: Lab) -> None:
    series, _ = lab.add_image("piece")
    uid = series.series_uid
    server = lab.server("one")
    submit(server, uid, lab.folder)
    count = len(lab.client.instances)
    server.sync_labels()
    server.sync_labels()
    assert len(lab.client.instances) == count, "what we sent is not taken in and sent again"
    store_foreign(lab, series, drawn()[::-1], NAMES)
    server.sync_labels()
    check_labels(server.study().item(uid), drawn()[::-1])
    assert len(list((lab.folder / "one" / "labels" / "submitted" / "versions" / uid).glob("0002*")))
    fresh = lab.server("two")
    fresh.sync_labels()
    check_labels(fresh.study().item(uid), drawn()[::-1])


def test_overlapping_segments_of_others_are_submissions_too(lab: Lab) -> None:
    series, _ = lab.add_image("piece")
    cell, organelle = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    cell[1:7, 1:5] = 1
    organelle[3:5, 2:4, 1:3] = 1
    store_foreign(lab, series, cell, ["soma 3"], organelle)
    server = lab.server("one")
    server.sync_labels()
    item = server.study().item(series.series_uid)
    sets = item.read_class_sets()
    only = (cell > 0) & (organelle == 0)
    assert (sets[only] == HIERARCHY.set_named("soma")).all()
    assert (sets[cell == 0] == HIERARCHY.unknown).all()
    assert (sets[organelle > 0] != HIERARCHY.unknown).all()


def test_a_store_that_is_down_loses_nothing(lab: Lab) -> None:
    uid = lab.add_image("piece")[0].series_uid
    server = lab.server("one")
    server.fetch(uid)
    before = len(lab.client.instances)
    lab.client.down = True
    submit(server, uid, lab.folder)
    assert server.list_images() == [uid], "the last list is kept"
    assert server.study().item(uid).has_label("final")
    lab.client.down = False
    again = lab.server("one")  # also after a restart
    again.sync_labels()
    assert len(lab.client.instances) == before + 1


def test_a_label_that_changes_while_it_is_sent_is_sent_again(lab: Lab) -> None:
    uid = lab.add_image("piece")[0].series_uid
    server = lab.server("one")
    server.fetch(uid)
    state = server._state
    state.mark_unsent(uid)
    change = state.unsent()[uid]
    state.mark_unsent(uid)  # another submission, while the first is on its way
    state.mark_sent(uid, change, "1.2.3")
    assert list(state.unsent()) == [uid] and state.knows("1.2.3")
    state.mark_sent(uid, state.unsent()[uid], "1.2.4")
    assert not state.unsent()


def test_labels_that_cannot_be_used_are_left_alone(lab: Lab) -> None:
    series, _ = lab.add_image("piece")
    path = lab.folder / "shifted.dcm"
    drawn = np.ones(SHAPE, np.uint8)
    write_seg(path, drawn, [Segment(1, "glia")], read_headers(series.files[0].parent))
    shifted = pydicom.dcmread(path)
    for frame in shifted.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 1.7
    lab.client.store_instances([shifted])
    server = lab.server("one")
    server.sync_labels()
    assert server.get_labeled_images() == []


def test_which_series_are_images(lab: Lab) -> None:
    ct, other = lab.add_image("piece")[0], lab.add_image("another", "OT")[0]
    assert lab.server("a").list_images() == [ct.series_uid]
    assert lab.server("b", {"Modality": "OT"}).list_images() == [other.series_uid]
    both = lab.server("c", {"Modality": ["CT", "OT"]})
    assert both.list_images() == sorted([ct.series_uid, other.series_uid])
    assert alternatives({"a": [1, 2], "b": 3}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    with pytest.raises(ValueError, match=r"no series 1\.2\.3"):
        both.fetch("1.2.3")


def test_series_without_our_record_take_their_size_from_the_file(lab: Lab) -> None:
    series, image = lab.add_image("piece")
    for path in series.files:
        plain = pydicom.dcmread(path)
        plain.remove_private_tags()
        lab.client.store_instances([plain])
    server = lab.server("one")
    server.fetch(series.series_uid)
    item = server.study().item(series.series_uid)
    assert item.voxel_size_nm == VOXEL_NM
    np.testing.assert_array_equal(item.open_image()[:, :, :], image)
