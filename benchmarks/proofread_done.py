"""To done: actions until the objects of a block are right, by the queue, by size, at random.

    python benchmarks/proofread_done.py [--weights FILE] [--data fib25 gala STUDY/ITEM] [--are 0.05]

An acted proofreader knows the truth and goes from object to object: the look at one is an action,
each merge or cut that it needs is one more, then it is accepted. Pieces of fewer than 500 voxels
are left where they are. The orders differ in which object is next: that of the place which
`doubtful` proposes, the largest, or any. Cuts go along fragments; what lies in one fragment stays
together ("best" is what can be reached so), and what lies in none is nobody's.
The data are looked for in $NEUROPIL_DATA, else in ../shared/data.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.instances import BLOCKS, Block  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy  # noqa: E402
from lib.metrics.object_scores import Contingency, adapted_rand_error, contingency  # noqa: E402
from lib.prediction.predictor import load_predictor  # noqa: E402
from lib.proofread.current import CurrentObjects, Placed  # noqa: E402
from lib.proofread.doubts import doubts_of  # noqa: E402
from lib.proofread.joins import Joins, ends_of_map, joins_of_fragments  # noqa: E402
from lib.proofread.log import EditLog  # noqa: E402
from lib.proofread.machine import MachineObjects  # noqa: E402
from lib.volumes.boxes import box_slices, fill_box, parse_box, whole_box  # noqa: E402
from lib.volumes.study import Study as StudyFolder  # noqa: E402

SEED = 0
SHOWN = (0, 5, 10, 20, 40, 60, 100)
"""Actions after which the error is told."""
MEAN_OF = 61
"""Numbers of actions, from 0 on, that the mean error is of."""
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
        self.own[0] = self.sizes[0] = 0  # what is in no fragment is nobody's to merge

    def are(self) -> float:
        """Adapted Rand error of the cells as they are."""
        base = int(self.cells.max()) + 1
        keys, index = np.unique(
            self.table.truth * base + self.cells[self.table.guess], return_inverse=True
        )
        counts = np.bincount(index.ravel(), self.table.counts).astype(np.int64)
        return adapted_rand_error(Contingency(keys // base, keys % base, counts))

    def best(self) -> float:
        """The error when each fragment is of the body that most of it lies in."""
        kept, self.cells = self.cells, self.own
        error = self.are()
        self.cells = kept
        return error

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


def curve(study: Study, steps: Iterator[int], most: int) -> list[float]:
    """The error before and after each action, of at most so many."""
    found = [study.are()]
    for _ in steps:
        found.append(study.are())
        if len(found) > most:
            break
    return found


def actions_to(errors: list[float], goal: float) -> str:
    """Actions until the error falls under a goal, or that it never does."""
    taken = next((n for n, error in enumerate(errors) if error < goal), None)
    return "never" if taken is None else str(taken)


def run(name: str, block: Block, weights: Path, options: argparse.Namespace) -> list[str]:
    """Rows of the table."""
    predictor = load_predictor(weights, load_settings(None))
    made = predictor.fragments(block.image, block.voxel_size_nm)
    assert made.ids.shape == block.truth.shape, "a block that is neither binned nor split"
    found = predictor.joined(made, block.image.shape, block.voxel_size_nm)
    graph, cells = made.graph, found.of_fragments
    joins = joins_of_fragments(
        made.ids, cells, graph.edges, predictor.joining.logits(graph), graph.sizes
    ).and_also(ends_of_map(found.ids, block.voxel_size_nm))
    study = Study(made.ids, cells, block.truth)
    before, best = study.are(), study.best()
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        machine = MachineObjects(np.asfortranarray(found.ids), "one")
        objects = CurrentObjects(EditLog(Path(folder), name), machine.shape, machine)
        steps = by_queue(study, objects, joins, made.ids, found.classes, predictor.hierarchy)
        curves["`doubtful`"] = curve(study, steps, options.most)
    present = np.unique(cells[cells > 0])
    sizes = np.bincount(cells, study.sizes)[present]
    orders = {"by size": present[np.argsort(-sizes, kind="stable")]}
    orders["at random"] = np.random.default_rng(SEED).permutation(present)
    for way, order in orders.items():
        study = Study(made.ids, cells, block.truth)
        curves[way] = curve(study, by_objects(study, order), options.most)
    goals = [before - share * (before - best) for share in (0.5, 0.8)] + options.are
    rows = []
    for way, errors in curves.items():
        at = " | ".join(f"{errors[min(n, len(errors) - 1)]:.3f}" for n in SHOWN)
        told = " | ".join(actions_to(errors, goal) for goal in goals)
        mean = np.mean([errors[min(n, len(errors) - 1)] for n in range(MEAN_OF)])
        rows.append(f"| {name} | {way} | {at} | {mean:.4f} | {told} | {best:.3f} |")
    return rows


def item_block(path: Path) -> Block:
    """An item of a study by STUDY/ITEM."""
    item = StudyFolder(path.parent, load_hierarchy()).item(path.name)
    truth = item.read_instances().astype(np.int64)
    return Block(np.asarray(item.source.read(whole_box(item.shape))), truth, item.voxel_size_nm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument(
        "--data", nargs="+", default=["fib25"],
        help=f"{', '.join(BLOCKS)}, or STUDY/ITEM with true objects",
    )  # fmt: skip
    parser.add_argument("--are", nargs="+", type=float, default=[0.05])
    parser.add_argument("--most", type=int, default=150, help="actions that are told of")
    parser.add_argument("--box", default=":,:,:", help="of the block: X0:X1,Y0:Y1,Z0:Z1")
    options = parser.parse_args()
    goals = " | ".join(["half of what can be", "80 %", *(f"under {a:g}" for a in options.are)])
    shown = " | ".join(map(str, SHOWN))
    print(f"| block | order | {shown} | mean to {MEAN_OF - 1} | {goals} | best |")
    print("|" + "---|" * (len(SHOWN) + 6 + len(options.are)))
    for name in options.data:
        block = BLOCKS[name]() if name in BLOCKS else item_block(Path(name))
        at = box_slices(fill_box(parse_box(options.box), whole_box(block.image.shape)))
        block = Block(block.image[at], block.truth[at], block.voxel_size_nm)
        for row in run(Path(name).name, block, options.weights, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
