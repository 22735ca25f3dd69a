"""A way to find objects: whose heads say what classes are and where boundaries lie."""

from __future__ import annotations

from dataclasses import dataclass

from lib.networks.model import NeuropilNet
from lib.networks.study_heads import BOUNDARY, StudyHeads, from_plain
from lib.prediction.filters import COUNT


@dataclass(frozen=True)
class Way:
    """Which heads of a study say what classes are and where boundaries lie.

    Args:
        classes: None: the network's own.
        boundary: with a boundary head; None: the network's affinities say it.
    """

    classes: StudyHeads | None = None
    boundary: StudyHeads | None = None

    @staticmethod
    def of(net: NeuropilNet) -> Way:
        """That of a network with the study heads that it has, and the boundary head of its file."""
        study = net.task_heads.study
        if not isinstance(study, StudyHeads):
            return Way(None, boundary_of(net))
        return Way(study, study if BOUNDARY in study.outputs else boundary_of(net))


def boundary_of(net: NeuropilNet) -> StudyHeads | None:
    """The boundary head that was fitted to a network's weights, if there is one.

    Raises:
        ValueError: it is for other filters than this version computes.
    """
    data = getattr(net, "boundary", None)
    if data is None:
        return None
    head = from_plain(data)
    if head.beside not in (0, COUNT):
        raise ValueError(
            f"boundary head for {head.beside} filter responses, this version has {COUNT}; fit it "
            "again with benchmarks/fit_boundary.py"
        )
    return head.to(next(net.parameters()).device)
