"""The study folder as MONAI Label's datastore, safe under threads, processes and kills.

The stock datastore writes its index in place (a kill leaves half a file and the server does
not start again), forgets what another process wrote, lists images by rules of its own, and is
changed by a watcher's thread while requests read it.
"""

from __future__ import annotations

import filecmp
import functools
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import (
    DataModel,
    ImageLabelModel,
    LocalDatastore,
    LocalDatastoreModel,
)

from lib.server.errors import CONFLICT, FORBIDDEN, NOT_FOUND, refuse
from lib.server.finite import finite
from lib.server.submissions import ORIGINAL_NAMES
from lib.server.uploads import check_image
from lib.volumes.atomic import StagedFiles, set_aside, write_bytes
from lib.volumes.errors import TARGET_ERRORS
from lib.volumes.listing import Skipped, leads_out, list_images, split_name
from lib.volumes.readers.region import REGION
from lib.volumes.record import check_id, read_record, record_path
from lib.volumes.regions import shown_path
from lib.volumes.study import SUBMITTED_SUFFIXES, TOUCHED
from lib.volumes.writing import label_file

logger = logging.getLogger("neuropil.datastore")

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
        self._guard = threading.RLock()
        self._submit = submit
        self._root = Path(root)
        self._follow_links = follow_links
        self._skipped: list[Skipped] = []
        self._index_state: tuple[int, int, int] | None = None
        try:
            super().__init__(root, **more)
        except OSError as error:
            if error.errno not in TARGET_ERRORS or not self._root.is_dir():
                raise
            logger.warning("%s takes no files (%s): it is served as it is", root, error.strerror)
            self._reconcile_datastore()
        handler = getattr(self, "_handler", None)
        if handler is not None:
            handler.on_moved = self._on_moved

    def skipped(self) -> list[Skipped]:
        """Files of the study folder that are no images, with the reason."""
        return list(self._skipped)

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

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and extension of a file name; the stock one makes "a.seg" of "a.seg.nrrd", and
        takes an extension out of the middle of a name.
        """
        if file.endswith(".seg.nrrd"):
            return file.removesuffix(".seg.nrrd"), ".seg.nrrd"
        own, extension = split_name(file)
        return (own, extension) if extension else (Path(file).stem, Path(file).suffix)

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

    def _on_moved(self, event: Any) -> None:
        """The index, or a label or image that was written atomically, was renamed into place."""
        if event.dest_path == self._datastore_config_path:
            with self._guard:
                self._init_from_datastore_file()
        else:
            self._on_any_event(event)

    def _reconcile_datastore(self) -> None:
        """Make the index show what lies in the folder, and tell what is left out of it."""
        self._init_from_datastore_file()
        before = self._datastore.model_dump()
        listing = list_images(self._root, self._follow_links)
        files = self._label_files()
        objects: dict[str, ImageLabelModel] = {}
        for image_id, path in listing.images.items():
            _, extension = split_name(path.name)
            entry = self._datastore.objects.get(image_id) or _new_entry(path, extension)
            if entry.image.ext != extension:
                entry.image.ext = extension
                entry.image.info["name"] = path.name
            held = {}
            for tag, names in files.items():
                known = entry.labels.get(tag)
                if known is not None and known.ext in names.get(image_id, ()):
                    held[tag] = known
                elif image_id in names:
                    extension = names[image_id][0]
                    info = {"ts": int(time.time()), "name": f"{image_id}{extension}"}
                    held[tag] = DataModel(info=info, ext=extension)
            entry.labels.clear()
            entry.labels.update(held)
            objects[image_id] = entry
        self._datastore.objects.clear()
        self._datastore.objects.update(objects)
        for left in listing.skipped:
            if left not in self._skipped:
                logger.warning("%s is no image of the study: %s", left.name, left.reason)
        self._skipped = listing.skipped
        if self._datastore.model_dump() != before:
            self._write_index_if_possible()

    def _label_files(self) -> dict[str, dict[str, list[str]]]:
        """tag -> image id -> endings of the files."""
        found: dict[str, dict[str, list[str]]] = {}
        labels = self._root / "labels"
        for folder in sorted(p for p in _entries(labels) if p.is_dir()):
            tag = folder.name
            if tag.startswith(".") or (not self._follow_links and leads_out(folder, self._root)):
                continue
            names = found.setdefault(tag, {})
            for path in _entries(folder):
                own, extension = self._to_id(path.name)
                if extension not in SUBMITTED_SUFFIXES or path.name.startswith("."):
                    continue
                if path.is_symlink() and not self._follow_links and leads_out(path, self._root):
                    logger.warning("%s is a link out of the study, left out", path)
                    continue
                names.setdefault(own, []).append(extension)
        return found

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Read the index if it changed; one that cannot be read is set aside and built anew."""
        path = Path(self._datastore_config_path)
        with self._index_lock():
            try:
                state = _state(path)
                if state is None or state == self._index_state:
                    return
                loaded = LocalDatastoreModel.model_validate_json(path.read_bytes())
            except (ValueError, OSError, RecursionError) as error:
                set_aside(path, error)
                return
            self._datastore = loaded
            self._datastore.base_path = self._datastore_path
            self._index_state = state

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the index.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        path = Path(self._datastore_config_path)
        with self._index_lock():
            write_bytes(path, text.encode())
            self._index_state = _state(path)

    def _write_index_if_possible(self) -> None:
        """Write the index; on a full disk it stays in memory: what counts are the files."""
        try:
            self._update_datastore_file()
        except OSError as error:
            if error.errno not in TARGET_ERRORS:
                raise
            logger.warning("the index of %s is not written: %s", self._root, error.strerror)

    @contextmanager
    def _index_lock(self) -> Iterator[None]:
        """Other processes wait; where no lock can be taken nothing can be written either."""
        lock = FileLock(self._lock_file)
        try:
            lock.acquire()
        except OSError as error:
            logger.debug("%s: %s", self._lock_file, error)
            yield
            return
        try:
            yield
        finally:
            lock.release()


def _new_entry(path: Path, extension: str) -> ImageLabelModel:
    info = {"ts": int(time.time()), "name": path.name}
    return ImageLabelModel(image=DataModel(info=info, ext=extension))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        logger.warning("%s cannot be listed: %s", folder, error.strerror)
        return []


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def inner(self: StudyDatastore, *positional: Any, **named: Any) -> Any:
        with self._guard:
            return method(self, *positional, **named)

    return inner


for _name in GUARDED:
    setattr(StudyDatastore, _name, _guarded(getattr(StudyDatastore, _name)))
