"""The study folder as MONAI Label's datastore, safe under threads, processes and kills.

The stock datastore writes its index in place (a kill leaves half a file and the server does
not start again), forgets what another process wrote, and is changed by a watcher's thread
while requests read it.
"""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from lib.server.errors import refuse
from lib.server.finite import finite
from lib.server.submissions import ORIGINAL_NAMES
from lib.volumes.atomic import StagedFiles, write_bytes
from lib.volumes.readers.opening import open_file
from lib.volumes.record import read_record, record_path
from lib.volumes.study import TOUCHED
from lib.volumes.writing import label_file

SHOWN_FIELDS = ("voxel_size_nm", "origin_voxels", "known_share", "fully_annotated", "split")
"""Fields of an item's record that go into its info."""

# Not those that copy or derive large files: `/info/` waits for this guard.
GUARDED = (
    "datalist", "get_image_uri", "get_label_uri", "get_label_info", "get_labels_by_image_id",
    "get_labeled_images", "get_unlabeled_images", "json", "list_images", "note_labels",
    "refresh", "remove_image", "remove_label", "status", "update_image_info",
    "update_label_info",
)  # fmt: skip


class StudyDatastore(LocalDatastore):
    """A local study.

    Args:
        root: the study folder.
        submit: called for a label with tag "final": (image id, file, info) -> info of the
            labels derived from it, by tag. What an annotator sends is never taken as it is.
        more: arguments of LocalDatastore.
    """

    def __init__(
        self,
        root: str,
        submit: Callable[[str, Path, dict[str, Any]], dict[str, dict[str, Any]]],
        **more: Any,
    ) -> None:
        self._guard = threading.RLock()
        self._submit = submit
        super().__init__(root, **more)
        handler = getattr(self, "_handler", None)
        if handler is not None:
            handler.on_moved = self._on_moved

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an uploaded image that can be read.

        Raises:
            VolumeError: it cannot.
        """
        path = Path(image_filename)
        source = open_file(path)
        source.read(((0, 1), (0, 1), (source.shape[2] - 1, source.shape[2])))
        source.close()
        own, extension = self._to_id(path.name)
        name = (image_id or own) + extension
        with StagedFiles() as staged, path.open("rb") as uploaded:
            shutil.copyfileobj(uploaded, staged.create(Path(self._datastore_path) / name))
            staged.commit()
        info = {**(image_info or {}), "ts": int(time.time()), "name": name}
        with self._guard:
            self._init_from_datastore_file()
            model = ImageLabelModel(image=DataModel(info=finite(info), ext=extension))
            self._datastore.objects[image_id or own] = model
            self._update_datastore_file()
        return image_id or own

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """The stored info and what the item's record knows."""
        with self._guard:
            info: dict[str, Any] = super().get_image_info(image_id)
        path = record_path(Path(self._datastore_path), image_id)
        record = read_record(path, image_id, None) if info and path.exists() else None
        if record is not None:
            told = record.to_dict()
            info.update({key: told[key] for key in SHOWN_FIELDS})
        return dict(finite(info))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label; one with tag "final" is a submission and goes through `submit`."""
        if image_id not in self.list_images():
            raise refuse(f"image: no image {image_id!r} in the studies", 404)
        if label_tag != "final":
            with self._guard:
                self._init_from_datastore_file()
                return str(super().save_label(image_id, label_filename, label_tag, label_info))
        told = dict(label_info or {})
        with self._guard:  # what batches left is shown to annotators as it is
            before = super().get_label_info(image_id, "original") or {}
        told[ORIGINAL_NAMES] = (before.get("params") or before).get("label_names")
        derived = self._submit(image_id, Path(label_filename), told)
        self.note_labels(image_id, derived)
        return image_id

    def note_labels(self, image_id: str, labels: dict[str, dict[str, Any]]) -> None:
        """Enter labels that were written into the study folder: tag -> their info.

        Each info has `name`, the file's name under `labels/<tag>/`.
        """
        self._init_from_datastore_file()
        entry = self._datastore.objects[image_id]
        for tag, info in labels.items():
            _, extension = self._to_id(str(info["name"]))
            entry.labels[tag] = DataModel(info=finite(info), ext=extension)
        self._update_datastore_file()

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and extension of a file name; the stock one makes "a.seg" of "a.seg.nrrd"."""
        if file.endswith(".seg.nrrd"):
            return file.removesuffix(".seg.nrrd"), ".seg.nrrd"
        own, extension = super()._to_id(file)
        return str(own), str(extension)

    def remove_image(self, image_id: str) -> None:
        """Remove an image, its labels and its record; submissions are put aside, not lost."""
        super().remove_image(image_id)
        root = Path(self._datastore_path)
        record_path(root, image_id).unlink(missing_ok=True)
        submitted = root / "labels" / "submitted"
        shutil.rmtree(root / "answers" / image_id, ignore_errors=True)
        label_file(root, TOUCHED, image_id).unlink(missing_ok=True)
        if (root / "edits" / image_id).is_dir():
            (root / "edits" / "removed").mkdir(exist_ok=True)
            aside = root / "edits" / "removed" / f"{image_id}-{time.time_ns()}"
            (root / "edits" / image_id).rename(aside)
        if (submitted / "versions" / image_id).is_dir():  # another image may get the name
            (submitted / "removed").mkdir(exist_ok=True)
            aside = submitted / "removed" / f"{image_id}-{time.time_ns()}"
            (submitted / "versions" / image_id).rename(aside)
        self.refresh()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to an image's info, after reading what other processes wrote."""
        self._init_from_datastore_file()
        super().update_image_info(image_id, finite(info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to a label's info, after reading what other processes wrote."""
        self._init_from_datastore_file()
        super().update_label_info(label_id, label_tag, finite(info))

    def _on_moved(self, event: Any) -> None:
        """The index, or a label or image that was written atomically, was renamed into place."""
        if event.dest_path == self._datastore_config_path:
            with self._guard:
                self._init_from_datastore_file()
        else:
            self._on_any_event(event)

    def _update_datastore_file(self, lock: bool = True) -> None:
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)

        def write() -> None:
            path = Path(self._datastore_config_path)
            write_bytes(path, text.encode())
            self._config_ts = path.stat().st_mtime

        if lock:
            with FileLock(self._lock_file):
                write()
        else:
            write()


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def inner(self: StudyDatastore, *positional: Any, **named: Any) -> Any:
        with self._guard:
            return method(self, *positional, **named)

    return inner


for _name in GUARDED:
    setattr(StudyDatastore, _name, _guarded(getattr(StudyDatastore, _name)))
