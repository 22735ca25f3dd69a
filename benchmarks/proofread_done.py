"""To done: actions until the objects of a block are right, by the queue, by size, at random.

    python benchmarks/proofread_done.py [--weights FILE] [--data fib25 gala] [--are 0.05]

An acted proofreader knows the truth and goes from object to object: the look at one is an action,
each merge or cut that it needs is one more, then it is accepted. Pieces of fewer than 500 voxels
are left where they are. The orders differ in which object is next: that of the place which
`doubtful` proposes, the largest, or any. Cuts go along fragments; what lies in one fragment stays
together ("best" is what can be reached so).
The data are looked for in $NEUROPIL_DATA, else in ../shared/data.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.instances import BLOCKS, Block  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy  # noqa: E402
from lib.metrics.object_scores import Contingency, adapted_rand_error, contingency  # noqa: E402
from lib.prediction.join_fitting import owners  # noqa: E402
from lib.prediction.predictor import load_predictor  # noqa: E402
from lib.proofread.current import CurrentObjects, Placed  # noqa: E402
from lib.proofread.doubts import doubts_of  # noqa: E402
from lib.proofread.joins import Joins, joins_of_fragments  # noqa: E402
from lib.proofread.log import EditLog  # noqa: E402
from lib.proofread.machine import MachineObjects  # noqa: E402
from lib.volumes.boxes import whole_box  # noqa: E402

SEED = 0
MOST_ACTIONS = 3000
LEAST_PIECE = 500
"""Voxels below which nobody mends a piece."""
Ids = NDArray[np.int64]


class Study:
    """One block while it is proofread; cells are sets of fragments.

    Args:
        fragments: (X, Y, Z) ids.
        cells: (F + 1,) cell of each fragment, by the machine.
        truth: (X, Y, Z), -1 unknown.
    """

    def __init__(self, fragments: NDArray[np.uint32], cells: Ids, truth: Ids) -> None:
        self.table = contingency(truth, fragments).of_objects()
        self.cells = cells.copy()
        known = self.table.truth > 0
        self.votes = np.zeros((len(cells), 1 + int(self.table.truth.max())), np.int64)
        np.add.at(self.votes, (self.table.guess[known], self.table.truth[known]),
                  self.table.counts[known])  # fmt: skip
        self.own = np.where(self.votes.any(1), self.votes.argmax(1), 0)
        self.sizes = self.votes.sum(1)

    def are(self) -> float:
        """Adapted Rand error of the cells as they are."""
        base = int(self.cells.max()) + 1
        keys, index = np.unique(
            self.table.truth * base + self.cells[self.table.guess], return_inverse=True
        )
        counts = np.bincount(index.ravel(), self.table.counts).astype(np.int64)
        return adapted_rand_error(Contingency(keys // base, keys % base, counts))

    def body(self, fragments: Ids) -> int:
        """The true body that most of some fragments are of."""
        total = self.votes[fragments].sum(0)
        return int(total.argmax()) if total.any() else 0

    def of(self, cell: int) -> Ids:
        """The fragments of a cell."""
        return np.flatnonzero(self.cells == cell)

    def cut(self, fragments: Ids) -> None:
        """Some fragments become a cell."""
        self.cells[fragments] = self.cells.max() + 1


def by_objects(study: Study, order: Ids) -> Iterator[int]:
    """Actions of going through objects; yields how many were taken at each step."""
    for cell in order.tolist():
        mine = study.of(cell)
        mine = mine[study.sizes[mine] > 0]
        if len(mine):
            yield 1
            for _ in corrected(study, cell, mine):
                yield 1


def corrected(study: Study, cell: int, mine: Ids) -> Iterator[tuple[str, Ids]]:
    """Correct a cell; yields ("cut" or "merge", the other part's fragments) after each.

    Args:
        mine: its fragments.
    """
    body = study.body(mine)
    for foreign in np.unique(study.own[mine]).tolist():
        part = mine[study.own[mine] == foreign]
        if foreign not in (0, body) and study.sizes[part].sum() >= LEAST_PIECE:
            study.cut(part)
            yield "cut", part
    for other in np.unique(study.cells[(study.own == body) & (study.sizes > 0)]).tolist():
        theirs = study.of(other)
        large = study.sizes[theirs].sum() >= LEAST_PIECE
        if body and other != cell and large and study.body(theirs) == body:
            study.cells[theirs] = cell
            yield "merge", theirs


def by_queue(
    study: Study,
    objects: CurrentObjects,
    joins: Joins,
    fragments: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
) -> Iterator[int]:
    """Actions of following the queue; the same for the log of edits, which the queue reads."""
    box = whole_box(objects.shape)
    while ranked := doubts_of(objects, joins, classes, hierarchy):
        number = ranked[0].object
        here = objects.voxels(number)
        assert here is not None, "what is in doubt is there"
        mine = _inside(here, fragments)
        yield 1
        cell = int(study.cells[mine[0]])
        for what, part in corrected(study, cell, mine[study.sizes[mine] > 0]):
            where = np.isin(fragments, part)
            if what == "cut":
                objects.split(Placed(where, box), number)
            else:
                (voxel,) = np.argwhere(where)[:1].tolist()
                objects.merge([number, *objects.at([voxel])])
            yield 1
        whole = objects.voxels(number)
        if whole is not None:
            objects.accept(whole, number, f"neuron part {number}")


def _inside(placed: Placed, fragments: NDArray[np.uint32]) -> Ids:
    part = fragments[tuple(slice(a, b) for a, b in placed.box)]
    found = np.unique(part[placed.mask])
    return found[found > 0].astype(np.int64)


def actions_to(study: Study, steps: Iterator[int], goal: float) -> tuple[int | None, float, float]:
    """Actions until the error falls under the goal (None: never), the last error, seconds."""
    taken, begin = 0, time.perf_counter()
    error = study.are()
    for step in steps:
        taken += step
        error = study.are()
        if error < goal or taken >= MOST_ACTIONS:
            break
    return (taken if error < goal else None), error, time.perf_counter() - begin


def run(name: str, block: Block, weights: Path, goals: list[float]) -> list[str]:
    """Rows of the table."""
    predictor = load_predictor(weights, load_settings(None))
    made = predictor.fragments(block.image, block.voxel_size_nm)
    assert made.ids.shape == block.truth.shape, "a block that is neither binned nor split"
    found = predictor.joined(made, block.image.shape, block.voxel_size_nm)
    graph, cells = made.graph, found.of_fragments
    joins = joins_of_fragments(
        made.ids, cells, graph.edges, predictor.joining.logits(graph), graph.sizes
    )
    best = Study(made.ids, owners(graph.count, made.ids, block.truth), block.truth).are()
    rows = []
    for goal in goals:
        for way in ("queue", "by size", "at random"):
            study = Study(made.ids, cells, block.truth)
            start = study.are()
            present = np.unique(cells[cells > 0])
            if way == "queue":
                with tempfile.TemporaryDirectory() as folder:
                    machine = MachineObjects(np.asfortranarray(found.ids), "one")
                    shape = machine.shape
                    objects = CurrentObjects(EditLog(Path(folder), name), shape, machine)
                    steps = by_queue(
                        study, objects, joins, made.ids, found.classes, predictor.hierarchy
                    )
                    taken, error, seconds = actions_to(study, steps, goal)
            else:
                sizes = np.bincount(cells, study.sizes)[present]
                order = present[np.argsort(-sizes)]
                if way == "at random":
                    order = np.random.default_rng(SEED).permutation(present)
                taken, error, seconds = actions_to(study, by_objects(study, order), goal)
            told = str(taken) if taken is not None else f"never ({error:.3f})"
            rows.append(
                f"| {name} | {goal:g} | {way} | {told} | {start:.3f} | {best:.3f} | {seconds:.1f} |"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--data", nargs="+", choices=tuple(BLOCKS), default=["fib25"])
    parser.add_argument("--are", nargs="+", type=float, default=[0.05])
    parser.add_argument("--size", nargs=3, type=int, metavar=("X", "Y", "Z"), help="of the block")
    options = parser.parse_args()
    print("| block | ARE under | order | actions | ARE before | best | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in options.data:
        block = BLOCKS[name]()
        if options.size:
            part = tuple(slice(0, n) for n in options.size)
            block = Block(block.image[part], block.truth[part], block.voxel_size_nm)
        for row in run(name, block, options.weights, options.are):
            print(row, flush=True)


if __name__ == "__main__":
    main()
