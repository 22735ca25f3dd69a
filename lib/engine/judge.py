"""What becomes of a run's weights: scored between epochs, the best kept, better ones published."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch

from lib.engine.log import TrainingLog
from lib.engine.options import RunOptions, RunResult
from lib.engine.pictures import place_picture
from lib.engine.publish import Publisher
from lib.engine.report import ReportWriter
from lib.engine.state import RunState
from lib.engine.validation import Place, ValidationReport, validate
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet
from lib.networks.weights import save_weights
from lib.volumes.errors import VolumeError

OLD_PLACES = 6
"""Places of the rehearsal data that a candidate must not get worse on."""


class Judge:
    """Scores the weights of a run.

    Args:
        places: of the studies; the score is of these.
        old_places: of the rehearsal data, on which published weights must not get worse.
        state: of the run; `best` and `validated_at` are kept in it.
        result: of the run; report and publication are kept in it.
        options: of the run.
        log, reports: where figures go.
        device, autocast: of the network.
        leads: whether this process writes.
    """

    def __init__(
        self,
        places: Sequence[Place],
        old_places: Sequence[Place],
        state: RunState,
        result: RunResult,
        options: RunOptions,
        log: TrainingLog,
        reports: ReportWriter,
        device: torch.device,
        autocast: Autocast,
        leads: bool,
    ) -> None:
        self.places, self.old_places = places, old_places
        self.state, self.result, self.options = state, result, options
        self.log, self.reports = log, reports
        self.device, self.autocast, self.leads = device, autocast, leads
        self.publisher = self._publisher()
        self._parts: dict[str, float] = {}

    def validate(self) -> None:
        """Score the current weights, keep the best, publish better ones."""
        started = time.perf_counter()
        self.state.validated_at = self.state.step
        if not self.places:
            self.options.note("no validation voxel is annotated: nothing to score")
        with self.state.averaged():
            report = self._report(self.state.net)
            parts = self._parts_of(report, self.state.net)
        self.result.report = report
        figures = report.scalars()
        self.log.scalars(figures, self.state.step)
        self.reports.validation(report, self.state)
        best = self.state.best
        if not self.places or best is None or not report.score <= best:
            self.state.best = report.score if self.places else None
            self._keep_best(report, parts)
        text = ", ".join(f"{k.removeprefix('val/')} {v:.3f}" for k, v in list(figures.items())[:9])
        seconds = time.perf_counter() - started
        self.options.note(f"step {self.state.step}: {text or 'no figures'} ({seconds:.0f} s)")

    def _keep_best(self, report: ValidationReport, parts: Mapping[str, float]) -> None:
        if not self.leads:
            return
        meta = {"step": self.state.step, "score": report.score, "figures": report.scalars()}
        meta |= self.state.net.fitted
        weights = self.state.average.state()
        save_weights(
            self.options.out_dir / "best.pt",
            weights,
            self.state.settings,
            self.state.hierarchy,
            meta,
        )
        if self.publisher is not None:
            done, self.result.reason = self.publisher.offer(weights, report.score, meta, parts)
            self.result.published |= done
            self.options.note(("published: " if done else "not published: ") + self.result.reason)

    def _report(self, net: NeuropilNet, alone: bool = False) -> ValidationReport:
        return self._figures(net, self.places, alone)

    def _score(self, net: NeuropilNet) -> float:
        report = self._report(net, alone=True)
        self._parts = self._parts_of(report, net, alone=True)
        return report.score

    def _parts_of(
        self, report: ValidationReport, net: NeuropilNet, alone: bool = False
    ) -> dict[str, float]:
        """Figures on the study and on the rehearsal data, by name; those that exist."""
        parts = dict(report.parts)
        if self.old_places and self.publisher is not None:
            old = self._figures(net, self.old_places, alone)
            parts |= {f"{name}, rehearsal data": figure for name, figure in old.parts.items()}
        return {name: figure for name, figure in parts.items() if not math.isnan(figure)}

    def show(self) -> None:
        """Put a picture of the first place into the log."""
        settings = self.state.settings.inference
        try:
            with self.state.averaged():
                picture = place_picture(
                    self.places[0], self.state.net, settings, self.device, self.autocast
                )
        except VolumeError as error:
            self.options.note(f"no picture: {error}")
            return
        self.log.picture("val/section", picture, self.state.step)

    def _publisher(self) -> Publisher | None:
        if self.options.published is None:
            return None
        return Publisher(
            self.options.published, self.state.settings, self.state.hierarchy, self._score,
            self.device, self.options.adapt, lambda: self._parts,
        )  # fmt: skip

    def _figures(self, net: NeuropilNet, places: Sequence[Place], alone: bool) -> ValidationReport:
        settings, hierarchy = self.state.settings, self.state.hierarchy
        return validate(net, places, settings, hierarchy, self.device, self.autocast, alone)
