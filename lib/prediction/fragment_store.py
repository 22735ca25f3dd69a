"""Fragments and their graph, kept with a study's items.

They answer another place of the slider, a correction or a study's own threshold without the
network. A file belongs to one image and one version of the weights; any other is made anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.prediction.graph import FragmentGraph
from lib.prediction.objects import Fragments
from lib.volumes.atomic import StagedFiles
from lib.volumes.errors import DAMAGED_ARRAYS

FOLDER = "fragments"
FORMAT = 1
MOST_VOXELS = 2**27
"""Larger maps are not kept: packing them would take longer than making them of cached features."""


def fragments_file(studies: Path, item: str) -> Path:
    """Where the fragments of an item lie."""
    return studies / FOLDER / f"{item}.npz"


def save_fragments(path: Path, fragments: Fragments, made_of: str) -> None:
    """Write them atomically; those of a large volume are left out.

    Args:
        path: of `fragments_file`.
        fragments: in the network's frame.
        made_of: what they depend on; `load_fragments` asks for the same.
    """
    if fragments.ids.size > MOST_VOXELS:
        return
    graph = fragments.graph
    with StagedFiles() as staged:
        np.savez_compressed(
            staged.create(path),
            format=FORMAT,
            made_of=made_of,
            ids=fragments.ids,
            edges=graph.edges,
            stats=graph.stats.astype(np.float32),
            votes=graph.votes,
        )
        staged.commit()


def load_fragments(path: Path, made_of: str | None = None) -> Fragments | None:
    """The fragments of an item.

    Args:
        path: of `fragments_file`.
        made_of: what they must depend on; None: whatever was found last.

    Returns:
        None where there are none, where they are of something else, or where the file cannot
        be read: they are made anew then.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            if int(data["format"]) != FORMAT or made_of not in (None, str(data["made_of"])):
                return None
            graph = FragmentGraph(data["edges"], data["stats"].astype(np.float64), data["votes"])
            return Fragments(data["ids"], graph)
    except DAMAGED_ARRAYS:
        return None
