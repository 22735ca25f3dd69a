"""The published network and an item, as learning from a study sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.adaptation.rehearsal import Reservoir
from lib.configs.settings import InferenceSettings
from lib.data.items import DataItem, LabelCache
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.grouping import Call, call_here
from lib.prediction.joining import PLAIN, JoinModel
from lib.volumes.study import StudyItem


@dataclass(frozen=True)
class Network:
    """The published network, as a refit needs it.

    Args:
        net: in evaluation mode, without any study's heads.
        hierarchy: of it.
        digest: SHA-256 of its weights file.
        finest_nm, most_split: of its model settings.
        inference: windows and precision of the runs that the heads are for.
        reservoir: gives the rehearsal rows; asked once for each refit.
        joining: which fragments belong together, as the weights say.
        call: how the work of a block is called, see `predict_fragments`.
    """

    net: NeuropilNet
    hierarchy: LabelHierarchy
    digest: str
    finest_nm: float
    most_split: int
    inference: InferenceSettings
    reservoir: Callable[[], Reservoir]
    joining: JoinModel = PLAIN
    call: Call = call_here


def data_item(item: StudyItem, network: Network) -> DataItem:
    """An item in the network's frame."""
    return DataItem(
        item, network.hierarchy, 0.2, LabelCache(0), network.finest_nm, network.most_split
    )
