"""Which regions were handed out, to whom and when: nobody is sent where somebody works."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.queries.scores import FOLDER
from lib.volumes.atomic import write_json
from lib.volumes.boxes import Box


@dataclass(frozen=True)
class HandedOut:
    """One region that somebody was sent to.

    Args:
        item: item id.
        box: voxels of the item.
        client: who asked; empty where the viewer does not say.
        strategy: that chose it.
        at: seconds since the epoch.
    """

    item: str
    box: Box
    client: str
    strategy: str
    at: float


class Ledger:
    """The list of regions handed out in a study: `<studies>/scores/handed_out.json`.

    Entries older than `keep_seconds` go at the next write; their number stays counted, since
    the noise of the queries decays with it.

    Args:
        root: the study's folder.
        keep_seconds: how long a region stays reserved.
    """

    def __init__(self, root: Path, keep_seconds: float) -> None:
        self.path = root / FOLDER / "handed_out.json"
        self.keep_seconds = keep_seconds

    def recent(self, now: float | None = None) -> list[HandedOut]:
        """Regions handed out less than `keep_seconds` ago."""
        now = time.time() if now is None else now
        return [e for e in self._read()[0] if now - e.at < self.keep_seconds]

    @property
    def served(self) -> int:
        """How many regions were ever handed out in this study."""
        return self._read()[1]

    def add(self, entry: HandedOut) -> None:
        """Note a region; older ones of the same client in the same place are replaced."""
        entries, served = self._read()
        kept = [
            e
            for e in entries
            if entry.at - e.at < self.keep_seconds and (e.item, e.box) != (entry.item, entry.box)
        ]
        rows = [asdict(e) for e in [*kept, entry]]
        write_json(self.path, {"served": served + 1, "regions": rows})

    def _read(self) -> tuple[list[HandedOut], int]:
        try:
            data = json.loads(self.path.read_text())
            return [_entry(row) for row in data["regions"]], int(data["served"])
        except FileNotFoundError:
            return [], 0
        except (ValueError, KeyError, TypeError):
            # Reservations are a courtesy of half an hour: a damaged list starts anew.
            return [], 0


def _entry(row: dict[str, Any]) -> HandedOut:
    x, y, z = ((int(low), int(high)) for low, high in row["box"])
    return HandedOut(
        str(row["item"]), (x, y, z), str(row["client"]), str(row["strategy"]), float(row["at"])
    )
