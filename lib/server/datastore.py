"""The study folder as MONAI Label's datastore: images and labels come in, go out and go.

Nothing is replaced that somebody made, and what is served lies in the study.
"""

from __future__ import annotations

import filecmp
import functools
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.datastore.local import (
    DataModel,
    ImageLabelModel,
)

from lib.server.errors import CONFLICT, FORBIDDEN, NOT_FOUND, refuse
from lib.server.finite import finite
from lib.server.study_index import StudyIndex
from lib.server.submissions import ORIGINAL_NAMES
from lib.server.uploads import check_image
from lib.volumes.atomic import StagedFiles, make_folder
from lib.volumes.listing import leads_out, list_images, split_name
from lib.volumes.readers.region import REGION
from lib.volumes.record import check_id, read_record, record_path
from lib.volumes.regions import shown_path
from lib.volumes.study import SUBMITTED_SUFFIXES, TOUCHED
from lib.volumes.writing import label_file

logger = logging.getLogger("neuropil.datastore")

SHOWN_FIELDS = ("voxel_size_nm", "origin_voxels", "known_share", "fully_annotated", "split")
"""Fields of an item's record that go into its info."""

KEPT_TAGS = frozenset({"final", "instance", "submitted", TOUCHED})
"""Labels that hold what people made or imported."""
REMOVED = ".removed"
"""Folder of `labels` for what was put aside; no tag begins with a dot."""

# Not those that copy or derive large files: `/info/` waits for this guard.
GUARDED = (
    "datalist", "get_image_uri", "get_label_uri", "get_label_info", "get_labels_by_image_id",
    "get_labeled_images", "get_unlabeled_images", "json", "list_images", "note_labels",
    "refresh", "remove_image", "remove_label", "status", "update_image_info",
    "update_label_info",
)  # fmt: skip


class StudyDatastore(StudyIndex):
    """A local study.

    Args:
        root: the study folder.
        submit: called for a label with tag "final": (image id, file, info) -> info of the
            labels derived from it, by tag. What an annotator sends is never taken as it is.
        follow_links: whether links out of the study are served.
        more: arguments of LocalDatastore.
    """

    def __init__(
        self,
        root: str,
        submit: Callable[[str, Path, dict[str, Any]], dict[str, dict[str, Any]]],
        *,
        follow_links: bool = False,
        **more: Any,
    ) -> None:
        self._submit = submit
        super().__init__(root, follow_links=follow_links, **more)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in an uploaded image that can be read, under an id that is free.

        Raises:
            VolumeError: it cannot be read.
            HTTPException: 409 where the id is taken by another image.
        """
        path = Path(image_filename)
        if path.name.lower().endswith(REGION):  # it would name any file of this machine
            raise refuse("file: a region is made by `main.py import --lazy`, not uploaded")
        own, extension = split_name(path.name)
        image_id, extension = image_id or own, extension.lower()
        check_id(image_id)
        check_image(path)
        target = self._root / f"{image_id}{extension}"
        with StagedFiles() as staged, path.open("rb") as uploaded:
            shutil.copyfileobj(uploaded, staged.create(target))
            with self._guard:
                taken = list_images(self._root).images.get(image_id)
                if taken is None:
                    staged.commit()
                elif not (taken == target and filecmp.cmp(taken, path, shallow=False)):
                    raise refuse(
                        f"image: {image_id!r} exists ({taken.name}) and is never replaced; choose "
                        "another name or delete it first",
                        CONFLICT,
                    )
                self._note_image(image_id, extension, image_info or {})
        return image_id

    def _note_image(self, image_id: str, extension: str, info: dict[str, Any]) -> None:
        self._init_from_datastore_file()
        known = self._datastore.objects.get(image_id)
        told = {**info, "ts": int(time.time()), "name": f"{image_id}{extension}"}
        if known is None:
            model = ImageLabelModel(image=DataModel(info=finite(told), ext=extension))
            self._datastore.objects[image_id] = model
        else:
            known.image.ext = extension
            known.image.info.update(finite(told))
        self._write_index_if_possible()

    def get_image_uri(self, image_id: str) -> str:
        """The image's file, under its own name in the study; "" where there is none.

        Raises:
            HTTPException: 403 for a link out of the study that is not to be followed.
        """
        known = self._datastore.objects.get(image_id)
        return self._served(self._root / f"{image_id}{known.image.ext}") if known else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """A label's file; "" where there is none.

        Raises:
            HTTPException: 403 for a link out of the study that is not to be followed.
        """
        known = self._datastore.label(label_id, label_tag)
        folder = self._root / "labels" / label_tag
        return self._served(folder / f"{label_id}{known.ext}") if known else ""

    def _served(self, path: Path) -> str:
        if not self._follow_links and leads_out(path, self._root):
            raise refuse(
                f"{path.name} is a link out of the study, which is not followed", FORBIDDEN
            )
        return str(path.absolute())

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """The stored info and what the item's record knows."""
        with self._guard:
            info: dict[str, Any] = super().get_image_info(image_id)
        if info.get("path"):  # a viewer that finds a file there opens it
            info["path"] = str(shown_path(Path(info["path"])))
        path = record_path(Path(self._datastore_path), image_id)
        record = read_record(path, image_id, None) if info and path.exists() else None
        if record is not None:
            told = record.to_dict()
            info.update({key: told[key] for key in SHOWN_FIELDS if key in told})
        return dict(finite(info))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label; one with tag "final" is a submission and goes through `submit`."""
        if image_id not in self.list_images():
            raise refuse(f"image: no image {image_id!r} in the studies", NOT_FOUND)
        if label_tag != "final":
            return self._keep_label(image_id, Path(label_filename), label_tag, label_info or {})
        told = dict(label_info or {})
        with self._guard:  # what batches left is shown to annotators as it is
            before = super().get_label_info(image_id, "original") or {}
        told[ORIGINAL_NAMES] = (before.get("params") or before).get("label_names")
        derived = self._submit(image_id, Path(label_filename), told)
        self.note_labels(image_id, derived)
        return image_id

    def _keep_label(self, image_id: str, file: Path, tag: str, info: dict[str, Any]) -> str:
        """Take a label as it is, in place of the one of this tag."""
        _, extension = self._to_id(file.name)
        folder = self._root / "labels" / tag
        target = folder / f"{image_id}{extension}"
        with StagedFiles() as staged, file.open("rb") as source:
            shutil.copyfileobj(source, staged.create(target))
            staged.commit()
        for other in SUBMITTED_SUFFIXES:
            if other != extension:
                (folder / f"{image_id}{other}").unlink(missing_ok=True)
        told = {**info, "ts": int(time.time()), "name": target.name}
        self.note_labels(image_id, {tag: told})
        return image_id

    def note_labels(self, image_id: str, labels: dict[str, dict[str, Any]]) -> None:
        """Enter labels that were written into the study folder: tag -> their info.

        Each info has `name`, the file's name under `labels/<tag>/`.
        """
        self._init_from_datastore_file()
        entry = self._datastore.objects.get(image_id)
        if entry is None:  # the image was removed meanwhile
            raise refuse(f"image: no image {image_id!r} in the studies any more", NOT_FOUND)
        for tag, info in labels.items():
            _, extension = self._to_id(str(info["name"]))
            entry.labels[tag] = DataModel(info=finite(info), ext=extension)
        self._write_index_if_possible()

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; one that people made or imported is put aside, not lost."""
        known = self._datastore.label(label_id, label_tag)
        if known is not None:
            path = self._root / "labels" / label_tag / f"{label_id}{known.ext}"
            if label_tag in KEPT_TAGS and path.exists():
                aside = self._root / "labels" / REMOVED / label_tag
                make_folder(aside)
                path.rename(aside / f"{time.time_ns()}-{path.name}")
            else:
                _remove_file(path)
        self.refresh()

    def remove_image(self, image_id: str) -> None:
        """Remove an image, its labels and its record; submissions are put aside, not lost.

        Of a link only the link goes: the stock datastore removes the file that it leads to.
        """
        known = self._datastore.objects.get(image_id)
        if known is None:
            raise refuse(f"image: no image {image_id!r} in the studies", NOT_FOUND)
        for tag in list(known.labels):
            self.remove_label(image_id, tag)
        (self._root / f"{image_id}{known.image.ext}").unlink(missing_ok=True)
        root = Path(self._datastore_path)
        _remove_file(record_path(root, image_id))
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
        known = self._datastore.objects.get(image_id)
        if known is None:
            raise refuse(f"image: no image {image_id!r} in the studies", NOT_FOUND)
        self._update_info(known.image, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to a label's info, after reading what other processes wrote."""
        self._init_from_datastore_file()
        known = self._datastore.label(label_id, label_tag)
        if known is None:
            raise refuse(f"label: {label_id!r} has no label {label_tag!r}", NOT_FOUND)
        self._update_info(known, info)

    def _update_info(self, entry: Any, info: dict[str, Any]) -> None:
        before = dict(entry.info)
        entry.info.update(finite(info))
        try:
            self._update_datastore_file()
        except BaseException:
            entry.info = before
            raise


def _remove_file(path: Path) -> None:
    """Remove a file; a folder in its place is nobody's that we know, and stays."""
    if path.is_dir() and not path.is_symlink():
        logger.warning("%s is a folder and stays", path)
    else:
        path.unlink(missing_ok=True)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def inner(self: StudyDatastore, *positional: Any, **named: Any) -> Any:
        with self._guard:
            return method(self, *positional, **named)

    return inner


for _name in GUARDED:
    setattr(StudyDatastore, _name, _guarded(getattr(StudyDatastore, _name)))
