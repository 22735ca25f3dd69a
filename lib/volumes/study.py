"""A study: a folder of images with their records and labels.

    <root>/<id>.nii                    image, uint8 or uint16, 1 nm written as 1 mm
    <root>/<id>.neuropil.json          its record
    <root>/labels/final/<id>.nii.gz    class map (lib/labels/encodings.py)
    <root>/labels/instance/<id>.nii.gz uint32 ids
    <root>/labels/touched/<id>.nii.gz  where a person decided; without it: everywhere
    <root>/labels/submitted/...        what annotators sent (lib/annotation/submissions.py)

A box of a larger volume is an item without voxels of its own: <id>.region.json says which
(lib/volumes/regions.py). Images that other programs put there (.nii, .nii.gz, .nrrd, single .tif
and .png sections) are items as well, see lib/volumes/listing.py; they get a record when something
is known about them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.labels.hierarchy import LabelHierarchy
from lib.volumes.atomic import remove_leftovers
from lib.volumes.errors import VolumeError
from lib.volumes.item import LABEL_SUFFIXES as LABEL_SUFFIXES
from lib.volumes.item import TOUCHED as TOUCHED
from lib.volumes.item import StudyItem as StudyItem
from lib.volumes.listing import Listing, list_images
from lib.volumes.record import ItemRecord
from lib.volumes.writing import (
    LabelCounts,
    Progress,
    Sliceable,
    label_file,
    write_item,
)

SUBMITTED_SUFFIXES = (".seg.nrrd", *LABEL_SUFFIXES)


class Study:
    """A folder of items.

    Args:
        root: the folder; made by the first `add_item`.
        hierarchy: what label values mean.
        spacing_unit: of images without a record ("nm", "um" or "mm").
        follow_links: whether links that lead out of the folder are items and labels.
        bright_membranes: of images whose record does not say.
    """

    def __init__(
        self,
        root: Path | str,
        hierarchy: LabelHierarchy,
        spacing_unit: str = "nm",
        follow_links: bool = False,
        bright_membranes: bool = False,
    ) -> None:
        self.root = Path(root)
        self.hierarchy = hierarchy
        self.spacing_unit = spacing_unit
        self.follow_links = follow_links
        self.bright_membranes = bright_membranes

    def listing(self) -> Listing:
        """The images by id, and the files that are left out, with the reason."""
        return list_images(self.root, self.follow_links)

    def items(self) -> list[StudyItem]:
        """All items, sorted by id; whether one can be read shows when it is."""
        return self.items_of(self.listing())

    def items_of(self, listing: Listing) -> list[StudyItem]:
        """The items of a listing."""
        return [StudyItem(self, i, p) for i, p in listing.images.items()]

    def labelled(self, tag: str) -> frozenset[str]:
        """The ids that a label of a tag may belong to: one look at its folder for all items."""
        try:
            names = [path.name for path in (self.root / "labels" / tag).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        return frozenset(n.removesuffix(s) for n in names for s in LABEL_SUFFIXES if n.endswith(s))

    def item(self, item_id: str) -> StudyItem:
        """One item.

        Raises:
            ValueError: no such item; the message lists those that exist.
        """
        images = self.listing().images
        if item_id not in images:
            names = ", ".join(list(images)[:20]) or "none"
            raise ValueError(f"study {self.root}: no item {item_id!r}; items: {names}")
        return StudyItem(self, item_id, images[item_id])

    def has_item(self, item_id: str) -> bool:
        """Whether there is such an item."""
        return item_id in self.listing().images

    def add_item(
        self,
        item_id: str,
        image: Sliceable,
        voxel_size_nm: tuple[float, float, float],
        class_sets: Sliceable | None = None,
        instance: Sliceable | None = None,
        *,
        uncertain: Sliceable | None = None,
        replace: bool = False,
        progress: Progress | None = None,
        chunk_depth: int = 1,
        **record_fields: Any,
    ) -> tuple[StudyItem, LabelCounts]:
        """Write an item; it appears whole or not at all.

        Args:
            item_id: its name, see `check_id`.
            image: (X, Y, Z) uint8 or uint16; sliced, never read whole.
            class_sets: (X, Y, Z) bit masks, or None when nothing is known.
            instance: (X, Y, Z) ids, -1 unknown, or None.
            uncertain: (X, Y, Z) bool, where neither class nor object can be known, or None.
            replace: write over an item of the same id that no annotator has touched.
            record_fields: further fields of ItemRecord.

        Returns:
            The item, and what its labels hold.

        Raises:
            ValueError: see `write_item`, or the id is taken.
        """
        record = ItemRecord(item_id, voxel_size_nm, **record_fields)
        self.check_free(item_id, replace)
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers([self.root, *(label_file(self.root, t, "").parent for t in _TAGS)])
        stale = self._other_files(item_id, class_sets is not None, instance is not None)
        record, counts = write_item(
            self.root, record, self.hierarchy, image, class_sets, instance, progress, chunk_depth,
            uncertain,
        )  # fmt: skip
        for path in stale:
            path.unlink(missing_ok=True)
        return self.item(item_id), counts

    def check_free(self, item_id: str, replace: bool = False) -> None:
        """Refuse an id whose item must not be written over.

        Raises:
            VolumeError: it exists and `replace` is not set, or annotators have submitted to it.
        """
        if not self.has_item(item_id):
            return
        if not replace:
            raise VolumeError(
                self.root, f"item {item_id} exists", remedy="choose another --id or use --replace"
            )
        submitted = self.root / "labels" / "submitted"
        kept = (submitted / "versions" / item_id).glob("[0-9]*")
        sent = any((submitted / f"{item_id}{s}").exists() for s in SUBMITTED_SUFFIXES)
        edited = (self.root / "edits" / item_id / "edits.jsonl").exists()
        if any(kept) or sent or edited:
            raise VolumeError(
                self.root,
                f"item {item_id} has {'edits' if edited else 'submissions'} of annotators, "
                "which are never overwritten",
                remedy="choose another --id",
            )

    def _other_files(self, item_id: str, final: bool, instance: bool) -> list[Path]:
        """Files of an item that is replaced and that the new item will not overwrite."""
        if not self.has_item(item_id):
            return []
        old = self.item(item_id)
        stale = [old.image_path] if old.image_path.name != f"{item_id}.nii" else []
        for tag, kept in (("final", final), ("instance", instance), (TOUCHED, False)):
            path = old.label_path(tag)
            if path.exists() and not (kept and path == label_file(self.root, tag, item_id)):
                stale.append(path)
        return stale


_TAGS = ("final", "instance")
