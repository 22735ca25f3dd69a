"""What the server last showed whom: a submission is held against it.

    <root>/answers/<item>/<client>/<task>.nrrd   the map that a task answered, as it was sent
    <root>/answers/<item>/<client>/<task>.json   the names of its values
    <root>/answers/<item>/<client>/clicked.json  names of segments that were clicked since
    <root>/answers/<item>/<client>/clicked-*.npz what was answered to clicks

Viewers send back everything that they hold: most of it are the machine's own guesses, which
nobody looked at. Files are linked, not copied, and the oldest go.

A study that takes no files can be looked at and clicked in all the same: what was shown is then
kept in a temporary folder until the server ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.annotation.clicked import Clicked
from lib.labels.hierarchy import normalize_name
from lib.volumes.atomic import aside_of, make_folder, write_bytes, write_json
from lib.volumes.errors import TARGET_ERRORS

logger = logging.getLogger(__name__)

MOST_CLIENTS = 8
"""Of one item, whose answers are kept."""
MOST_BYTES = 2 * 2**30
"""Of all answers of a study together."""
SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii")
CLICKED = "clicked"
ASKED = f"{CLICKED}-*.npz"
MOST_ASKED = 64
"""Answers to clicks of one client on one item that are kept."""


@dataclass(frozen=True)
class Shown:
    """A map that a viewer was given.

    Args:
        file: values on the image's grid.
        names: name -> value.
    """

    file: Path
    names: Mapping[str, int]


class LastAnswers:
    """The last automatic answers to each client.

    Args:
        root: the study's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "answers"
        self._lock = threading.Lock()
        self._spare: tempfile.TemporaryDirectory[str] | None = None

    def note(
        self, item_id: str, client: str, task: str, file: Path, names: Mapping[str, int]
    ) -> None:
        """Keep an answer in place of the last one of this task."""
        suffix = next((s for s in SUFFIXES if file.name.endswith(s)), "")
        if not suffix:
            return

        def write(folder: Path) -> None:
            _link(file, folder / f"{task}{suffix}")
            for other in SUFFIXES:
                if other != suffix:
                    (folder / f"{task}{other}").unlink(missing_ok=True)
            write_json(folder / f"{task}.json", {"file": f"{task}{suffix}", "names": dict(names)})
            # What was clicked before gave way to this answer in the viewer.
            given = {normalize_name(name) for name in names}
            if clicked := _read(folder / f"{CLICKED}.json").get("names", []):
                left = [name for name in clicked if name not in given]
                write_json(folder / f"{CLICKED}.json", {"names": left})
            _make_room(folder)

        self._keep(item_id, client, write)

    def note_click(
        self, item_id: str, client: str, name: str, found: Clicked | None = None, place: str = ""
    ) -> None:
        """A person clicked on a segment: what comes back under its name is theirs.

        Args:
            found: the answer, which is theirs under another name as well; it takes the place of
                the last one of this name and place.
            place: tells objects that were clicked without a name apart; "" with a name.
        """
        if not name.strip():
            return

        def write(folder: Path) -> None:
            if found is not None:
                key = hashlib.sha256(f"{normalize_name(name)} {place}".encode()).hexdigest()[:16]
                write_bytes(folder / f"{CLICKED}-{key}.npz", found.to_bytes())
                for old in _by_age(folder.glob(ASKED))[:-MOST_ASKED]:
                    old.unlink(missing_ok=True)
            before = _read(folder / f"{CLICKED}.json").get("names", [])
            if normalize_name(name) not in before:
                names = sorted({*before, normalize_name(name)})
                write_json(folder / f"{CLICKED}.json", {"names": names})

        self._keep(item_id, client, write)

    def of(self, item_id: str, client: str) -> tuple[list[Shown], list[str]]:
        """What a client was shown of an item, and the segments that it clicked."""
        folder = self._folder(item_id, client)
        shown = []
        for path in sorted(folder.glob("[!.]*.json")):
            told = _read(path)
            file = folder / str(told.get("file", ""))
            if path.stem != CLICKED and told.get("file") and file.exists():
                shown.append(Shown(file, {str(k): int(v) for k, v in told["names"].items()}))
        return shown, list(_read(folder / f"{CLICKED}.json").get("names", []))

    def asked(self, item_id: str, client: str) -> list[Path]:
        """Files of what a client clicked for in an item (`Clicked`), oldest first."""
        return _by_age(self._folder(item_id, client).glob(ASKED))

    def forget(self, item_id: str) -> None:
        """Drop everything of an item."""
        with self._lock:
            shutil.rmtree(self.root / item_id, ignore_errors=True)
            if self._spare is not None:
                shutil.rmtree(Path(self._spare.name) / item_id, ignore_errors=True)

    def _folder(self, item_id: str, client: str) -> Path:
        # Clients name themselves; the name is no path.
        own = Path(item_id, hashlib.sha256(client.encode()).hexdigest()[:16])
        if self._spare is not None and (Path(self._spare.name) / own).is_dir():
            return Path(self._spare.name) / own
        return self.root / own

    def _keep(self, item_id: str, client: str, write: Callable[[Path], None]) -> None:
        """Write into a client's folder, or into a temporary one where the study takes no files."""
        with self._lock:
            folder = self._folder(item_id, client)
            try:
                make_folder(folder)
                write(folder)
            except OSError as error:
                if error.errno not in TARGET_ERRORS or folder.parents[1] != self.root:
                    raise
                if self._spare is None:
                    logger.warning(
                        "%s takes no files (%s): what is shown is noted until the server ends",
                        self.root, error.strerror,
                    )  # fmt: skip
                    self._spare = tempfile.TemporaryDirectory(prefix="neuropil-answers-")
                spare = Path(self._spare.name) / folder.relative_to(self.root)
                if folder.is_dir():
                    shutil.copytree(folder, spare)
                make_folder(spare)
                write(spare)


def _link(file: Path, target: Path) -> None:
    """Put a file in its place by a link, or by a copy to another disk."""
    aside = aside_of(target)
    try:
        try:
            aside.hardlink_to(file)
        except OSError:  # on another disk
            shutil.copyfile(file, aside)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _make_room(newest: Path) -> None:
    """Remove the oldest of the folders beside a client's."""
    of_item = _by_age(f for f in newest.parent.iterdir() if f.is_dir())
    for folder in of_item[: max(0, len(of_item) - MOST_CLIENTS)]:
        if folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
    folders = _by_age(f for f in newest.parents[1].glob("*/*") if f.is_dir())
    sizes = {f: sum(p.stat().st_size for p in f.iterdir() if p.is_file()) for f in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= MOST_BYTES or folder == newest:
            break
        total -= sizes[folder]
        shutil.rmtree(folder, ignore_errors=True)


def _by_age(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
