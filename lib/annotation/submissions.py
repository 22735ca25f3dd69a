"""Submissions of annotators: kept as they came (lib/annotation/versions.py), labels derived.

A submission whose labels were not derived yet is found by `recover`, which derives them:
deriving twice gives the same. Whatever one upload does, it stops neither the next one nor the
next start: any exception marks it rejected, with the reason; only what a disk refused stays to
be derived later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.annotation.deriving import Derived, stage_labels
from lib.annotation.versions import (
    DERIVED,
    SubmissionOptions,
    Version,
    derived_version,
    keep,
    keep_first_labels,
    locked,
    mark_of,
    mark_rejected,
    readable_versions,
    show_newest,
    suffix_of,
    versions_root,
)
from lib.volumes.atomic import StagedFiles, put_in_place, remove_leftovers
from lib.volumes.errors import TARGET_ERRORS, DiskError, VolumeError, disk_error
from lib.volumes.study import TOUCHED, Study

logger = logging.getLogger("neuropil.submissions")


@dataclass(frozen=True)
class Prepared:
    """Labels that were derived and written aside.

    Args:
        derived: what they hold.
        files: (where it lies, where it belongs), see `lib.volumes.atomic.put_in_place`.
    """

    derived: Derived
    files: list[tuple[Path, Path]]


def prepare_labels(
    study: Study, item_id: str, version: Version, mapping: Mapping[str, str]
) -> Prepared:
    """Derive the labels of a version that is kept, aside: nothing of the study changes.

    Raises:
        ValueError: see `stage_labels`.
    """
    folder = versions_root(study) / item_id
    with StagedFiles() as staged:
        derived = stage_labels(
            staged, study.item(item_id), folder / version.file, version.label_info,
            fully_annotated=version.options.fully_annotated, roi=version.options.roi,
            merge=version.options.mode == "merge", mapping=mapping,
            origin=version.options.origin(),
        )  # fmt: skip
        staged.create(folder / DERIVED).write(mark_of(version, derived.notes))
        return Prepared(derived, staged.seal())


Prepare = Callable[[Study, str, Version, Mapping[str, str]], Prepared]
"""`prepare_labels`, or a way to call it elsewhere, within limits."""


def submit(
    study: Study,
    item_id: str,
    label: Path,
    label_info: Sequence[Mapping[str, Any]] | None = None,
    options: SubmissionOptions | None = None,
    mapping: Mapping[str, str] | None = None,
    suffix: str | None = None,
    prepare: Prepare = prepare_labels,
) -> Derived:
    """Keep a submission and derive the item's labels from it.

    Args:
        label: the uploaded file; it is copied.
        label_info: [{"name", "idx"}, ...] in the order of the segments.
        mapping: names of the lab -> class or group names.
        suffix: kind of file, where the upload's name does not tell.
        prepare: derives the labels aside.

    Returns:
        What the labels hold now, with notes for the annotator.

    Raises:
        VolumeError: the file cannot be used; it is kept all the same, marked as rejected.
        ValueError: no such item, or segments that explain nothing.
        DiskError: the disk is full or read-only; says whether the file was kept. What was kept
            is derived by the next submission or start.
    """
    study.item(item_id)
    options = options or SubmissionOptions()
    suffix = suffix or suffix_of(label)
    info = None if label_info is None else [dict(entry) for entry in label_info]
    try:
        with locked(study, item_id) as folder:
            _derive_pending(study, item_id, folder, mapping or {}, prepare)
            keep_first_labels(study, item_id, folder)
            version = keep(folder, label, suffix, info, options)
            return _derive(study, item_id, folder, version, mapping or {}, prepare)
    except OSError as error:
        raise disk_error(study.root, error) from error


def recover(
    study: Study,
    mapping: Mapping[str, str] | None = None,
    prepare: Prepare = prepare_labels,
) -> list[str]:
    """Derive the labels of submissions that were kept but cut off before that.

    Call it when a server starts. No state of the folder stops it: what cannot be recovered is
    logged, and left as it is.

    Returns:
        Ids of the items whose labels were derived now.
    """
    root = versions_root(study)
    done = []
    items = {item.id for item in study.items()} if root.is_dir() else set()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not folder.is_dir() or folder.name not in items:
            continue
        try:
            with locked(study, folder.name):
                if _derive_pending(study, folder.name, folder, mapping or {}, prepare):
                    done.append(folder.name)
        except Exception as error:
            logger.error("submissions to %s are not recovered: %s", folder.name, error)
    return done


def _derive(
    study: Study,
    item_id: str,
    folder: Path,
    version: Version,
    mapping: Mapping[str, str],
    prepare: Prepare,
) -> Derived:
    try:
        prepared = prepare(study, item_id, version, mapping)
        put_in_place(prepared.files)
    except Exception as error:
        remove_leftovers(_written_folders(study, folder))
        if isinstance(error, OSError) and error.errno in TARGET_ERRORS:
            # Not the upload's fault: it is derived when there is space.
            raise disk_error(study.root, error, kept=f"submission {version.number}") from error
        raise _reject(folder, version, error) from error
    try:
        show_newest(study, item_id, folder / version.file)
    except OSError as error:  # the labels are there; the next submission or start makes the link
        logger.warning("%s is not shown as the newest: %s", folder / version.file, error)
    return prepared.derived


def _reject(folder: Path, version: Version, error: Exception) -> Exception:
    """Mark a version that no labels can be derived from; it stays, and is not tried again.

    Returns:
        What to tell the annotator: the error itself where it is in words.
    """
    known = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
    reason = str(error) if known else f"cannot be read ({type(error).__name__}: {error})"
    mark_rejected(folder, version, reason)
    if isinstance(error, VolumeError) and error.where == str(folder / version.file):
        # Where it is kept is no business of whoever sent it.
        where = f"submission {version.number}"
        return VolumeError(where, error.found, error.expected, error.remedy)
    if known:
        return error
    logger.error("submission %s: %s", folder / version.file, reason)
    return VolumeError(version.file, reason, remedy="it is kept, and no labels come from it")


def _derive_pending(
    study: Study, item_id: str, folder: Path, mapping: Mapping[str, str], prepare: Prepare
) -> bool:
    """Derive what was kept after the version that the labels show."""
    remove_leftovers(_written_folders(study, folder))
    done = derived_version(folder)
    usable = [v for v in readable_versions(folder) if not v.rejected]
    if shown := [v for v in usable if v.number <= done]:
        show_newest(study, item_id, folder / shown[-1].file)
    pending = [v for v in usable if v.number > done]
    for version in pending:
        try:
            _derive(study, item_id, folder, version, mapping, prepare)
        except ValueError as error:
            if isinstance(error, DiskError):
                raise
            continue  # marked as rejected, with the reason
    return bool(pending)


def _written_folders(study: Study, folder: Path) -> list[Path]:
    """Where deriving an item's labels writes."""
    tags = ("final", "instance", TOUCHED, "submitted")
    return [study.root, folder, *(study.root / "labels" / t for t in tags)]
