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
        alone: the boundary head says it without the network, which knew little of a study's
            tissue. Otherwise both do, and what keeps two voxels apart more counts.
    """

    classes: StudyHeads | None = None
    boundary: StudyHeads | None = None
    alone: bool = False

    @property
    def asks_network(self) -> bool:
        """Whether the network's own affinities are asked."""
        return self.boundary is None or not self.alone

    @staticmethod
    def of(net: NeuropilNet) -> Way:
        """That of a network with the study heads that it has, and the boundary head of its file."""
        study = net.task_heads.study
        if not isinstance(study, StudyHeads):
            return Way(None, boundary_of(net))
        if BOUNDARY in study.outputs:
            return Way(study, study, alone=True)
        return Way(study, boundary_of(net))


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
