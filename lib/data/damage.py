"""Data that cannot be read in the middle of a run: named once and left out, the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from lib.data.items import DataItem
from lib.data.positions import blocks_of
from lib.volumes.errors import VolumeError

Note = Callable[[str], None]

TRIES = 8
"""So many places of an item that fail one after the other, and it is lost as a whole."""


class ItemLost(Exception):
    """Nothing of an item seems to be readable.

    Args:
        item: the item.
    """

    def __init__(self, item: DataItem) -> None:
        self.item = item
        super().__init__(item.id)


class Damage:
    """Counts what of a run's items could not be read.

    Args:
        note: told of each item that has such places, and of each that is lost.
    """

    def __init__(self, note: Note) -> None:
        self.note = note
        self._in_a_row: dict[int, int] = {}
        self._lock = Lock()

    def failed(self, item: DataItem, error: VolumeError) -> None:
        """A place of an item could not be read.

        Raises:
            ItemLost: for the TRIES-th time in a row.
        """
        key = id(item)  # names repeat between studies
        with self._lock:
            first = key not in self._in_a_row
            self._in_a_row[key] = self._in_a_row.get(key, 0) + 1
            lost = self._in_a_row[key] >= TRIES
        if first:
            self.note(f"{item.id}: places that cannot be read are left out: {error}")
        if lost:
            raise ItemLost(item)

    def passed(self, item: DataItem) -> None:
        """A place of an item was read."""
        with self._lock:
            if self._in_a_row.get(id(item)):
                self._in_a_row[id(item)] = 0


def with_readable_labels(items: Sequence[DataItem], note: Note) -> list[DataItem]:
    """The items whose labels can be read from end to end.

    Args:
        note: told of each other one, and why.
    """
    found = []
    for item in items:
        try:
            for box in blocks_of(item.shape):
                item.read_labels(box)
            found.append(item)
        except VolumeError as error:
            note(f"left out: {item.id}: {error}")
    return found
