"""Submissions of annotators: kept as they came, canonical labels derived from them.

    labels/submitted/<id><ext>                 the newest, as it was sent
    labels/submitted/versions/<id>/0001<ext>   every one, as it was sent
    labels/submitted/versions/<id>/0001.json   its segments, options and fate
    labels/submitted/versions/<id>/0001-shown-...   what the annotator had been given before
    labels/submitted/versions/<id>/0000-...    the labels before the first submission
    labels/submitted/versions/<id>/derived.json   the version that `final` and `instance` show

A process killed at any moment leaves each file old or new and whole. A submission whose labels
were not derived yet is found by `recover`, which derives them: deriving twice gives the same.

Whatever one upload does, it stops neither the next one nor the next start: any exception marks
it rejected, with the reason; only what a disk refused stays to be derived later.
"""

from __future__ import annotations

import fcntl
import filecmp
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lib.annotation.deriving import Derived, Origin, stage_labels
from lib.annotation.shown import Shown
from lib.volumes.atomic import (
    StagedFiles,
    json_bytes,
    put_in_place,
    remove_leftovers,
    set_aside,
    write_json,
)
from lib.volumes.boxes import Box
from lib.volumes.errors import TARGET_ERRORS, DiskError, VolumeError, disk_error
from lib.volumes.study import TOUCHED, Study

logger = logging.getLogger("neuropil.submissions")

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii")
RECORDS = "[0-9]*.json"
Mode = Literal["replace", "merge"]
Truth = Literal["touched", "all"]


@dataclass(frozen=True)
class SubmissionOptions:
    """How a submission is to be read.

    Args:
        fully_annotated: everything that the segments name is painted wherever it occurs;
            None leaves what the item's record says.
        roi: ((x0, x1), (y0, y1), (z0, z1)), the part that was annotated; outside of it the
            labels stay as they are.
        mode: "replace", the submission is all there is to know (of the region); "merge",
            voxels that it leaves unpainted keep their labels.
        params: anything else that the viewer sent, kept with the version.
        truth: "touched", only what a person decided is known; "all", everything submitted is.
        shown: what the annotator had been given; kept with the version.
        clicked: names of segments that they clicked.
        names: normalised name -> id of the current objects.
        first_free: the least id for objects whose name brings none.
    """

    fully_annotated: bool | None = None
    roi: Box | None = None
    mode: Mode = "replace"
    params: Mapping[str, Any] = field(default_factory=dict)
    truth: Truth = "touched"
    shown: Sequence[Shown] = ()
    clicked: Sequence[str] = ()
    names: Mapping[str, int] = field(default_factory=dict)
    first_free: int = 1

    def origin(self) -> Origin:
        """Where the submission comes from."""
        return Origin(self.shown, self.clicked, self.truth == "all", self.names, self.first_free)


@dataclass(frozen=True)
class Version:
    """One submission as it is kept.

    Args:
        number: 1, 2, ...
        file: name of the raw file beside the record.
        label_info: as sent; None for files that name their own segments.
        options: as sent.
        time: UTC, ISO 8601.
        rejected: why no labels could be derived from it; "" when they could.
    """

    number: int
    file: str
    label_info: list[dict[str, Any]] | None
    options: SubmissionOptions
    time: str
    rejected: str = ""


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
    folder = _versions_root(study) / item_id
    with StagedFiles() as staged:
        derived = stage_labels(
            staged, study.item(item_id), folder / version.file, version.label_info,
            fully_annotated=version.options.fully_annotated, roi=version.options.roi,
            merge=version.options.mode == "merge", mapping=mapping,
            origin=version.options.origin(),
        )  # fmt: skip
        mark = {"version": version.number, "notes": derived.notes}
        staged.create(folder / "derived.json").write(json_bytes(mark))
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
    suffix = suffix or _suffix(label)
    info = None if label_info is None else [dict(entry) for entry in label_info]
    try:
        with _locked(study, item_id) as folder:
            _derive_pending(study, item_id, folder, mapping or {}, prepare)
            _keep_first_labels(study, item_id, folder)
            version = _keep(folder, label, suffix, info, options)
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
    root = _versions_root(study)
    done = []
    items = {item.id for item in study.items()} if root.is_dir() else set()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if not folder.is_dir() or folder.name not in items:
            continue
        try:
            with _locked(study, folder.name):
                if _derive_pending(study, folder.name, folder, mapping or {}, prepare):
                    done.append(folder.name)
        except Exception as error:
            logger.error("submissions to %s are not recovered: %s", folder.name, error)
    return done


def versions(study: Study, item_id: str) -> list[Version]:
    """All submissions of an item, oldest first.

    Raises:
        VolumeError: a damaged record.
    """
    folder = _versions_root(study) / item_id
    return [_read_version(p) for p in sorted(folder.glob(RECORDS))]


def _keep(
    folder: Path,
    label: Path,
    suffix: str,
    label_info: list[dict[str, Any]] | None,
    options: SubmissionOptions,
) -> Version:
    """Copy the raw file; its record appears after it and makes the version count."""
    numbers = [int(p.name[:4]) for p in folder.glob("[0-9][0-9][0-9][0-9].*")]
    number = max([0, *numbers]) + 1
    kept = []
    for shown in options.shown:  # what it was held against goes on existing
        file = folder / f"{number:04d}-shown-{shown.file.name}"
        _link(shown.file, file)
        kept.append(Shown(file, shown.names))
    options = replace(options, shown=kept)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    version = Version(number, f"{number:04d}{suffix}", label_info, options, now)
    with StagedFiles() as staged, label.open("rb") as source:
        shutil.copyfileobj(source, staged.create(folder / version.file), 1 << 20)
        staged.create(_version_path(folder, number)).write(json_bytes(_as_json(version)))
        staged.commit()
    return version


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
        _show_newest(study, item_id, folder / version.file)
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
    write_json(_version_path(folder, version.number), {**_as_json(version), "rejected": reason})
    if known:
        return error
    logger.error("submission %s: %s", folder / version.file, reason)
    return VolumeError(version.file, reason, remedy="it is kept, and no labels come from it")


def _derive_pending(
    study: Study, item_id: str, folder: Path, mapping: Mapping[str, str], prepare: Prepare
) -> bool:
    """Derive what was kept after the version that the labels show."""
    remove_leftovers(_written_folders(study, folder))
    done = _derived_version(folder)
    usable = [v for v in _readable_versions(folder) if not v.rejected]
    if shown := [v for v in usable if v.number <= done]:
        _show_newest(study, item_id, folder / shown[-1].file)
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


def _derived_version(folder: Path) -> int:
    """The version that the labels show; 0 where nothing readable tells, so that all are derived.

    Versions derived again, in their order, give the same labels.
    """
    mark = folder / "derived.json"
    try:
        return int(json.loads(mark.read_text())["version"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        set_aside(mark, error)
        return 0


def _readable_versions(folder: Path) -> list[Version]:
    """All versions; a damaged record is set aside, its upload stays."""
    found = []
    for path in sorted(folder.glob(RECORDS)):
        try:
            found.append(_read_version(path))
        except VolumeError as error:
            set_aside(path, error)
    return found


def _keep_first_labels(study: Study, item_id: str, folder: Path) -> None:
    """Labels that were there before anyone submitted are someone's work as well."""
    if any(folder.glob(RECORDS)):
        return
    item = study.item(item_id)
    for tag in ("final", "instance"):
        path = item.label_path(tag)
        if path.exists():
            name = path.name.removeprefix(item_id)
            _link(path, folder / f"0000-{tag}{name}")


def _show_newest(study: Study, item_id: str, raw: Path) -> None:
    """Put the newest raw file where the datastore looks for the tag `submitted`."""
    root = study.root / "labels" / "submitted"
    suffix = raw.name[4:]
    target = root / f"{item_id}{suffix}"
    if not target.exists() or not filecmp.cmp(raw, target, shallow=False):
        _link(raw, target)
    for other in SUFFIXES:
        path = root / f"{item_id}{other}"
        if path != target:
            path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file that is never changed in place; a copy where links fail."""
    with StagedFiles() as staged:
        aside = staged.name(target)
        try:
            aside.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, aside)
        staged.commit()


@contextmanager
def _locked(study: Study, item_id: str) -> Iterator[Path]:
    """Submissions of one item are kept and derived one after the other."""
    folder = _versions_root(study) / item_id
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _versions_root(study: Study) -> Path:
    return study.root / "labels" / "submitted" / "versions"


def _version_path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def _suffix(label: Path) -> str:
    for suffix in SUFFIXES:
        if label.name.lower().endswith(suffix):
            return suffix
    raise VolumeError(label, "a label of an unknown kind", f"one of {', '.join(SUFFIXES)}")


def _as_json(version: Version) -> dict[str, Any]:
    data = asdict(version)
    data["options"]["shown"] = [
        {"file": one.file.name, "names": dict(one.names)} for one in version.options.shown
    ]
    return data


def _read_version(path: Path) -> Version:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        options = data.pop("options")
        roi = options.pop("roi")
        box: Any = None if roi is None else tuple((int(a), int(b)) for a, b in roi)
        shown = [Shown(path.parent / s["file"], s["names"]) for s in options.pop("shown", [])]
        options["shown"] = shown
        return Version(options=SubmissionOptions(roi=box, **options), **data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VolumeError(path, f"not a readable submission record ({error})") from error
