"""Clicks to quality: what a number of clicks buys, over many objects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

AFTER = (1, 2, 3, 5, 10)
TARGETS = (0.80, 0.85, 0.90)
LIMIT = 20
LOSS = 0.1
"""An answer worse than the one before it by more than this IoU has cost the annotator work."""


@dataclass(frozen=True)
class ClickReport:
    """The figures of one method on one data set.

    Args:
        objects: how many sessions.
        iou_after: clicks -> mean IoU.
        spread_after: clicks -> standard deviation of the IoU over objects.
        area: mean IoU over clicks 1 to 10, the area under the curve.
        clicks_to: IoU target -> mean number of clicks to reach it (NoC); a session that does
            not reach it counts as LIMIT.
        failures: IoU target -> sessions that never reached it within LIMIT clicks.
        lost: share of the clicks after the first that made the IoU worse by more than LOSS; 0
            without any such click.
    """

    objects: int
    iou_after: dict[int, float]
    spread_after: dict[int, float]
    area: float
    clicks_to: dict[float, float]
    failures: dict[float, int]
    lost: float

    def to_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "objects": self.objects,
            "iou_after": {str(k): round(v, 6) for k, v in self.iou_after.items()},
            "spread_after": {str(k): round(v, 6) for k, v in self.spread_after.items()},
            "area": round(self.area, 6),
            "lost": round(self.lost, 6),
            **{f"noc_{round(t * 100)}": round(v, 6) for t, v in self.clicks_to.items()},
            **{f"failures_{round(t * 100)}": v for t, v in self.failures.items()},
        }


@dataclass
class ClickScores:
    """IoU after each click, of many sessions."""

    sessions: list[list[float]] = field(default_factory=list)

    def update(self, quality: list[float]) -> None:
        """Add a session: the IoU after its first, second ... click.

        A session that ended early keeps its last answer.

        Raises:
            ValueError: a session without any click.
        """
        if not quality:
            raise ValueError("a session needs at least one click")
        self.sessions.append(list(quality))

    def merge(self, other: ClickScores) -> None:
        """Add the sessions of another accumulator."""
        self.sessions.extend(other.sessions)

    def after(self, clicks: int) -> list[float]:
        """IoU after so many clicks, of each session."""
        return [_after(s, clicks) for s in self.sessions]

    def needed(self, target: float) -> list[int]:
        """Clicks to an IoU, of each session; LIMIT where it is never reached."""
        return [_needed(s, target) or LIMIT for s in self.sessions]

    def curve(self, clicks: int = AFTER[-1]) -> list[float]:
        """Mean IoU after 1, 2 ... `clicks` clicks."""
        return [_mean(self.after(n)) for n in range(1, clicks + 1)]

    def result(self) -> ClickReport:
        """All figures of the sessions so far.

        Raises:
            ValueError: there is no session.
        """
        if not self.sessions:
            raise ValueError("no session was recorded, so there are no click figures")
        after = {n: self.after(n) for n in AFTER}
        needed = {t: [_needed(s, t) for s in self.sessions] for t in TARGETS}
        lost = [float(b < a - LOSS) for s in self.sessions for a, b in pairwise(s)]
        return ClickReport(
            objects=len(self.sessions),
            iou_after={n: _mean(v) for n, v in after.items()},
            spread_after={n: _spread(v) for n, v in after.items()},
            area=_mean(self.curve()),
            clicks_to={t: _mean([n or LIMIT for n in found]) for t, found in needed.items()},
            failures={t: sum(n is None for n in found) for t, found in needed.items()},
            lost=_mean(lost) if lost else 0.0,
        )


def _after(session: list[float], clicks: int) -> float:
    return session[min(clicks, len(session)) - 1]


def _needed(session: list[float], target: float) -> int | None:
    """The first click after which the target is reached, None when it never is."""
    for clicks, iou in enumerate(session[:LIMIT], start=1):
        if iou >= target:
            return clicks
    return None


def _mean(values: list[float] | list[int]) -> float:
    return math.fsum(values) / len(values)


def _spread(values: list[float]) -> float:
    mean = _mean(values)
    return math.sqrt(_mean([(v - mean) ** 2 for v in values]))
