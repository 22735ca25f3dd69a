"""Submissions as they are kept: every upload as it came, with its segments, options and fate.

    labels/submitted/<id><ext>                 the newest, as it was sent
    labels/submitted/versions/<id>/0001<ext>   every one, as it was sent
    labels/submitted/versions/<id>/0001.json   its segments, options and fate
    labels/submitted/versions/<id>/0001-shown-...   what the annotator had been given before
    labels/submitted/versions/<id>/0000-...    the labels before the first submission
    labels/submitted/versions/<id>/derived.json   the version that `final` and `instance` show

A process killed at any moment leaves each file old or new and whole.
"""

from __future__ import annotations

import fcntl
import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lib.annotation.deriving import Origin
from lib.annotation.shown import Shown
from lib.volumes.atomic import StagedFiles, json_bytes, set_aside, write_json
from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii")
RECORDS = "[0-9]*.json"
DERIVED = "derived.json"
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
        asked: files of what they clicked for (`Clicked`); kept with the version.
        accepted: ids of the current objects that are accepted.
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
    asked: Sequence[Path] = ()
    accepted: Sequence[int] = ()

    def origin(self) -> Origin:
        """Where the submission comes from."""
        return Origin(
            self.shown, self.clicked, self.truth == "all", self.names, self.first_free, self.asked,
            self.accepted,
        )  # fmt: skip


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


def versions(study: Study, item_id: str) -> list[Version]:
    """All submissions of an item, oldest first.

    Raises:
        VolumeError: a damaged record.
    """
    folder = versions_root(study) / item_id
    return [_read_version(p) for p in sorted(folder.glob(RECORDS))]


def readable_versions(folder: Path) -> list[Version]:
    """All versions; a damaged record is set aside, its upload stays."""
    found = []
    for path in sorted(folder.glob(RECORDS)):
        try:
            found.append(_read_version(path))
        except VolumeError as error:
            set_aside(path, error)
    return found


def keep(
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
    asked = [folder / f"{number:04d}-{file.name}" for file in options.asked]
    for file, target in zip(options.asked, asked, strict=True):
        _link(file, target)
    options = replace(options, shown=kept, asked=asked)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    version = Version(number, f"{number:04d}{suffix}", label_info, options, now)
    with StagedFiles() as staged, label.open("rb") as source:
        shutil.copyfileobj(source, staged.create(folder / version.file), 1 << 20)
        staged.create(_version_path(folder, number)).write(json_bytes(_as_json(version)))
        staged.commit()
    return version


def derived_version(folder: Path) -> int:
    """The version that the labels show; 0 where nothing readable tells, so that all are derived.

    Versions derived again, in their order, give the same labels.
    """
    mark = folder / DERIVED
    try:
        return int(json.loads(mark.read_text())["version"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        set_aside(mark, error)
        return 0


def mark_rejected(folder: Path, version: Version, reason: str) -> None:
    """Write why no labels can be derived from a version; its upload stays."""
    write_json(_version_path(folder, version.number), {**_as_json(version), "rejected": reason})


def mark_of(version: Version, notes: Sequence[str]) -> bytes:
    """What `derived.json` holds once the labels show a version."""
    return json_bytes({"version": version.number, "notes": notes})


def keep_first_labels(study: Study, item_id: str, folder: Path) -> None:
    """Labels that were there before anyone submitted are someone's work as well."""
    if any(folder.glob(RECORDS)):
        return
    item = study.item(item_id)
    for tag in ("final", "instance"):
        path = item.label_path(tag)
        if path.exists():
            name = path.name.removeprefix(item_id)
            _link(path, folder / f"0000-{tag}{name}")


def show_newest(study: Study, item_id: str, raw: Path) -> None:
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


@contextmanager
def locked(study: Study, item_id: str) -> Iterator[Path]:
    """Submissions of one item are kept and derived one after the other."""
    folder = versions_root(study) / item_id
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def versions_root(study: Study) -> Path:
    """The folder of all kept versions, one folder an item."""
    return study.root / "labels" / "submitted" / "versions"


def suffix_of(label: Path) -> str:
    """The kind of an uploaded file, by its name.

    Raises:
        VolumeError: none that is known.
    """
    for suffix in SUFFIXES:
        if label.name.lower().endswith(suffix):
            return suffix
    raise VolumeError(label, "a label of an unknown kind", f"one of {', '.join(SUFFIXES)}")


def _link(source: Path, target: Path) -> None:
    """A second name for a file that is never changed in place; a copy where links fail."""
    with StagedFiles() as staged:
        aside = staged.name(target)
        try:
            aside.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, aside)
        staged.commit()


def _version_path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def _as_json(version: Version) -> dict[str, Any]:
    data = asdict(version)
    data["options"]["shown"] = [
        {"file": one.file.name, "names": dict(one.names)} for one in version.options.shown
    ]
    data["options"]["asked"] = [file.name for file in version.options.asked]
    return data


def _read_version(path: Path) -> Version:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        options = data.pop("options")
        roi = options.pop("roi")
        box: Any = None if roi is None else tuple((int(a), int(b)) for a, b in roi)
        shown = [Shown(path.parent / s["file"], s["names"]) for s in options.pop("shown", [])]
        options["shown"] = shown
        options["asked"] = [path.parent / name for name in options.pop("asked", [])]
        return Version(options=SubmissionOptions(roi=box, **options), **data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VolumeError(path, f"not a readable submission record ({error})") from error
