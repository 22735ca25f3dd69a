"""One session in Slicer, as the plan says; what Slicer then holds goes to files.

    python slicer_session.py PLAN.json

The plan: server, plugin, extension, out (a folder), steps: a list of [name, arguments]. After
each step the segments are kept in out/<n>.npz and named in out/report.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from slicer_scene import Slicer
from slicer_stubs import DIALOGS


class Session:
    """Runs the steps and keeps what Slicer holds after each.

    Args:
        plan: see the module.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.out = plan, Path(plan["out"])
        self.slicer = Slicer(Path(plan["plugin"]), plan["server"], plan["extension"])
        self.report: list[dict[str, Any]] = []

    def run(self) -> None:
        """All steps; the report is written whatever happens."""
        try:
            for name, arguments in self.plan["steps"]:
                begin, before = time.monotonic(), len(DIALOGS)
                told = getattr(self, name)(**arguments)
                entry = {
                    "step": name,
                    "seconds": round(time.monotonic() - begin, 2),
                    "dialogs": DIALOGS[before:],
                    "told": told,
                    "segments": self._keep(len(self.report)),
                }
                self.report.append(entry)
        finally:
            (self.out / "report.json").write_text(json.dumps(self.report, indent=1, default=str))

    def connect(self) -> dict[str, Any]:
        return self.slicer.connect()

    def next_sample(self, strategy: str) -> dict[str, Any]:
        sample = self.slicer.next_sample(strategy)
        np.save(self.out / "volume.npy", self.slicer.volume())
        return sample

    def segment(self, model: str, **options: Any) -> None:
        self.slicer.choose("models", model, **options)
        self.slicer.segment(model)

    def click(
        self, model: str, label: str, positive: Any = (), negative: Any = (), **options: Any
    ) -> None:
        if options:
            self.slicer.choose("models", model, **options)
        self.slicer.click(model, label, self._voxels(positive), self._voxels(negative))

    def _voxels(self, points: Any) -> list[list[int]]:
        """Points are voxels, or voxels by the image that Slicer shows."""
        image = self.slicer.widget.current_sample["id"]
        return [p[image] if isinstance(p, dict) else p for p in points]

    def add_segment(self, name: str, box: list[list[int]] | None = None) -> None:
        mask = None
        if box is not None:
            mask = np.zeros(self.slicer.volume().shape, bool)
            mask[tuple(slice(low, high) for low, high in box)] = True
        self.slicer.add_segment(name, mask)

    def rename(self, old: str, new: str) -> None:
        self.slicer.rename(old, new)

    def remove(self, name: str) -> None:
        self.slicer.remove(name)

    def clear(self) -> None:
        self.slicer.clear()

    def submit(self) -> None:
        self.slicer.submit("segmentation")

    def train(self, trainer: str, **options: Any) -> list[dict[str, Any]]:
        """Start training; the progress that the plugin shows until it ends."""
        self.slicer.choose("trainers", trainer, **options)
        self.slicer.train(trainer)
        shown = []
        while True:
            now = self.slicer.training()
            shown.append(now)
            if now["status"] not in ("SUBMITTED", "RUNNING", "PENDING"):
                return shown
            time.sleep(1)

    def _keep(self, number: int) -> list[dict[str, Any]]:
        if self.slicer.widget._segmentNode is None:
            return []
        segments = self.slicer.segments()
        if segments:
            masks = np.packbits(np.stack([s["mask"] for s in segments]), axis=-1)
            np.savez_compressed(self.out / f"{number}.npz", masks=masks)
        return [
            {"name": s["name"], "id": s["id"], "color": s["color"], "voxels": int(s["mask"].sum())}
            for s in segments
        ]


if __name__ == "__main__":
    Session(json.loads(Path(sys.argv[1]).read_text())).run()
