"""The index of a study, safe under threads, processes and kills, and true to the folder.

The stock datastore writes its index in place (a kill leaves half a file and the server does
not start again), forgets what another process wrote, lists images by rules of its own, and is
changed by a watcher's thread while requests read it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
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

from lib.server.watching import FolderWatch
from lib.volumes.atomic import set_aside, write_bytes
from lib.volumes.contents import missing_content
from lib.volumes.errors import TARGET_ERRORS
from lib.volumes.listing import Skipped, leads_out, list_images, split_name
from lib.volumes.study import SUBMITTED_SUFFIXES

logger = logging.getLogger("neuropil.datastore")


class StudyIndex(LocalDatastore):
    """A datastore whose index follows a study folder.

    Args:
        root: the study folder.
        follow_links: whether links out of the study are items and labels.
        auto_reload: whether changes that others make are noticed without being asked.
        more: arguments of LocalDatastore.
    """

    def __init__(
        self, root: str, *, follow_links: bool = False, auto_reload: bool = False, **more: Any
    ) -> None:
        self._guard = threading.RLock()
        self._root = Path(root)
        self._follow_links = follow_links
        self._skipped: list[Skipped] = []
        self._index_state: tuple[int, int, int] | None = None
        self._told: set[Path] = set()
        for folder in (self._root / "labels", self._root / "labels" / "final"):
            if folder.is_file():  # the start needs the folder
                set_aside(folder, "a folder is needed")
        try:
            super().__init__(root, auto_reload=False, **more)
        except OSError as error:
            if error.errno not in TARGET_ERRORS or not self._root.is_dir():
                raise
            logger.warning("%s takes no files (%s): it is served as it is", root, error.strerror)
            self._reconcile_datastore()
        if auto_reload:
            watch = FolderWatch(self._root, Path(self._datastore_config_path).name, self.refresh)
            watch.start(polling=self._is_on_mount(root))

    def skipped(self) -> list[Skipped]:
        """Files of the study folder that are no images, with the reason."""
        return list(self._skipped)

    def _to_id(self, file: str) -> tuple[str, str]:
        """Id and extension of a file name; the stock one makes "a.seg" of "a.seg.nrrd", and
        takes an extension out of the middle of a name.
        """
        if file.endswith(".seg.nrrd"):
            return file.removesuffix(".seg.nrrd"), ".seg.nrrd"
        own, extension = split_name(file)
        return (own, extension) if extension else (Path(file).stem, Path(file).suffix)

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
                if path.is_symlink() and (fault := self._link_fault(path)):
                    if path not in self._told:
                        self._told.add(path)
                        logger.warning("%s is %s, left out", path, fault)
                    continue
                names.setdefault(own, []).append(extension)
        return found

    def _link_fault(self, path: Path) -> str:
        """Why a link to a label is none; "" for one that is followed."""
        if not path.exists():
            return missing_content(path).told
        if not self._follow_links and leads_out(path, self._root):
            return "a link out of the study"
        return ""

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
