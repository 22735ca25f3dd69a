"""Notices images and labels that others put into a study folder, take away or rename.

The stock watcher asks for every event there is, also that a file was opened, and compares each
with patterns that it compiles anew: reading 2,000 headers kept a core busy for twenty seconds.
It also reads the whole folder again for each of 2,000 files that are copied into it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

logger = logging.getLogger("neuropil.datastore")

EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileDeletedEvent, FileMovedEvent,
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent,
]  # fmt: skip
QUIET_SECONDS = 0.2
"""How long events are collected before they are told of at once."""


class FolderWatch(FileSystemEventHandler):
    """Tells of changes in a study folder, from a thread of its own, many at once.

    Args:
        root: the study folder.
        index: name of a file in it whose replacement counts as a change.
        changed: called after images or labels have changed, never twice at a time.
    """

    def __init__(self, root: Path, index: str, changed: Callable[[], None]) -> None:
        root = root.absolute()
        self._root, self._labels, self._index = str(root), str(root / "labels"), str(root / index)
        self._changed = changed
        self._pending = threading.Event()

    def start(self, polling: bool) -> bool:
        """Begin.

        Args:
            polling: look at the folder again and again, for file systems that tell of nothing.

        Returns:
            Whether it can be watched; the log says why not.
        """
        observer = PollingObserver() if polling else Observer()
        try:
            observer.schedule(self, self._root, recursive=True, event_filter=EVENTS)
            observer.start()
        except OSError as error:
            logger.error("%s is not watched for changes of others: %s", self._root, error)
            return False
        threading.Thread(target=self._tell, name="study-watch", daemon=True).start()
        return True

    def dispatch(self, event: FileSystemEvent) -> None:
        """Note an event that concerns images or labels."""
        if self.concerns(str(event.src_path)) or self.concerns(str(event.dest_path)):
            self._pending.set()

    def concerns(self, path: str) -> bool:
        """Whether a path is that of the index, an image, a label, or a folder of labels."""
        if path == self._index:
            return True
        folder, _, name = path.rpartition("/")
        if not name or name.startswith(".") or name.endswith((".json", ".lock")):
            return False
        return folder in (self._root, self._labels) or folder.rpartition("/")[0] == self._labels

    def _tell(self) -> None:
        while self._pending.wait():
            threading.Event().wait(QUIET_SECONDS)
            self._pending.clear()
            try:
                self._changed()
            except Exception:
                # A watcher has nobody to raise to, and must see the next change.
                logger.exception("%s changed, and could not be read", self._root)
