"""What the server last showed whom: a submission is held against it.

    <root>/answers/<item>/<client>/<task>.nrrd   the map that a task answered, as it was sent
    <root>/answers/<item>/<client>/<task>.json   the names of its values
    <root>/answers/<item>/<client>/clicked.json  names of segments that were clicked since

Viewers send back everything that they hold: most of it are the machine's own guesses, which
nobody looked at. Files are linked, not copied, and the oldest go.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.labels.hierarchy import normalize_name
from lib.volumes.atomic import make_folder, write_json

MOST_CLIENTS = 8
"""Of one item, whose answers are kept."""
MOST_BYTES = 2 * 2**30
"""Of all answers of a study together."""
SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii")
CLICKED = "clicked"


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

    def note(
        self, item_id: str, client: str, task: str, file: Path, names: Mapping[str, int]
    ) -> None:
        """Keep an answer in place of the last one of this task."""
        folder = self._folder(item_id, client)
        suffix = next((s for s in SUFFIXES if file.name.endswith(s)), "")
        if not suffix:
            return
        with self._lock:
            make_folder(folder)
            aside = folder / f".{task}.part"
            aside.unlink(missing_ok=True)
            try:
                aside.hardlink_to(file)
            except OSError:  # on another disk
                shutil.copyfile(file, aside)
            for other in SUFFIXES:
                (folder / f"{task}{other}").unlink(missing_ok=True)
            aside.replace(folder / f"{task}{suffix}")
            write_json(folder / f"{task}.json", {"file": f"{task}{suffix}", "names": dict(names)})
            # What was clicked before gave way to this answer in the viewer.
            given = {normalize_name(name) for name in names}
            if clicked := _read(folder / f"{CLICKED}.json").get("names", []):
                left = [name for name in clicked if name not in given]
                write_json(folder / f"{CLICKED}.json", {"names": left})
            self._make_room(folder)

    def note_click(self, item_id: str, client: str, name: str) -> None:
        """A person clicked on a segment: what comes back under its name is theirs."""
        if not name.strip():
            return
        with self._lock:
            folder = self._folder(item_id, client)
            before = _read(folder / f"{CLICKED}.json").get("names", [])
            if normalize_name(name) not in before:
                names = sorted({*before, normalize_name(name)})
                write_json(folder / f"{CLICKED}.json", {"names": names})

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

    def forget(self, item_id: str) -> None:
        """Drop everything of an item."""
        with self._lock:
            shutil.rmtree(self.root / item_id, ignore_errors=True)

    def _folder(self, item_id: str, client: str) -> Path:
        # Clients name themselves; the name is no path.
        return self.root / item_id / hashlib.sha256(client.encode()).hexdigest()[:16]

    def _make_room(self, newest: Path) -> None:
        of_item = _by_age(newest.parent.iterdir())
        for folder in of_item[: max(0, len(of_item) - MOST_CLIENTS)]:
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)
        folders = _by_age(self.root.glob("*/*"))
        sizes = {f: sum(p.stat().st_size for p in f.iterdir() if p.is_file()) for f in folders}
        total = sum(sizes.values())
        for folder in folders:
            if total <= MOST_BYTES or folder == newest:
                break
            total -= sizes[folder]
            shutil.rmtree(folder, ignore_errors=True)


def _by_age(folders: Any) -> Sequence[Path]:
    return sorted((f for f in folders if f.is_dir()), key=lambda f: f.stat().st_mtime)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
