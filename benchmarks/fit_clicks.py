"""Fit what a corrective click means (lib/clicks/meaning.py), and store it in a weights file.

    python benchmarks/fit_clicks.py studies/fib25 studies/vnc [--weights FILE] [--check]

Simulated annotators correct the objects that the weights find in boxes of the training part of
every item that has objects. Of every change that a click may mean the gain is known there; a small
network learns to choose by what can be seen. Whoever trains new weights runs it on the data of the
training, never on the data that measure, after `benchmarks/fit_joining.py`. `--check` leaves one
data set out at a time and says what the model of the others makes of it.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fit_joining import store  # noqa: E402
from benchmarks.training_boxes import MOST_ITEMS, training_boxes, training_items  # noqa: E402
from lib.clicks.changes import Answer, Change, Correction  # noqa: E402
from lib.clicks.cheapest import Pieces  # noqa: E402
from lib.clicks.masks import Mask  # noqa: E402
from lib.clicks.meaning import PLAIN, Choose, Meaning, corrected, seen_of  # noqa: E402
from lib.clicks.scale import BEYOND, ball  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.evaluation.click_sessions import clickable_objects  # noqa: E402
from lib.labels.hierarchy import IGNORE_INDEX  # noqa: E402
from lib.metrics.clicks import Click, seeded_generator, simulate_clicks  # noqa: E402
from lib.prediction.join_fitting import MEMBERS, averaged, fitted_layers  # noqa: E402
from lib.prediction.perceptron import Perceptron  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402

SIZE = (256, 256, 48)
"""Voxels of a box."""
SECTIONS = 3
"""Of a box whose ids hold within sections only."""
LEAST = 1000
"""Voxels of an object that is corrected."""
CLICKS = 7
"""Of a session."""
BEST = 0.6
"""Share of the clicks that are taken for what they are best taken for; the others at random, so
that answers of all qualities are seen."""
BATCH = 256
LOSS = 4.0
"""How much more a loss weighs than a gain: people mind a good object that is spoilt."""
OPEN = 0.002
"""Weight of the choice's entropy, which keeps it open while it learns."""


@dataclass(frozen=True)
class Example:
    """A box with what was found in it and what is true.

    Args:
        name: of the item.
        number: of the box.
        ids: (x, y, z) true cells, negative unknown.
        objects: (x, y, z) what was found.
        pieces: all fragments.
        voxel_size_nm: (x, y, z).
    """

    name: str
    number: int
    ids: NDArray[np.int64]
    objects: NDArray[np.uint32]
    pieces: Pieces
    voxel_size_nm: tuple[float, float, float]

    @property
    def group(self) -> str:
        """The data set; boxes of one volume's two files are of one."""
        return self.name.partition("-")[0].removesuffix("block")

    def asked(self, objects: NDArray[np.uint32]) -> Pieces:
        """The pieces, with the contacts within and between some objects."""
        pieces = self.pieces
        use = np.isin(pieces.objects[pieces.edges], objects).all(1)
        return Pieces(
            pieces.ids, pieces.objects, pieces.edges[use], pieces.logits[use], pieces.sizes[use]
        )


@dataclass(frozen=True)
class Decision:
    """What was seen of a click's changes, and what each of them brings.

    Args:
        group: data set.
        seen: (C, FEATURES).
        gains: (C,) by how much the IoU rises.
    """

    group: str
    seen: NDArray[np.float32]
    gains: NDArray[np.float32]


def examples_of(
    studies: Sequence[Path], predictor: Predictor, items: int, boxes: int
) -> Iterator[Example]:
    """Boxes of the training items; where ids hold within sections only, some sections of each."""
    chosen = training_items(studies, predictor, items)
    for number, box in enumerate(training_boxes(chosen, predictor, SIZE, boxes)):
        found = predictor.fragments(box.image, box.voxel_size_nm)
        joined = found.objects(
            predictor.joining, predictor.hierarchy, predictor.inference.min_object_voxels
        )
        graph = found.graph
        pieces = Pieces(
            found.ids, joined.of_fragments, graph.edges.astype(np.int64),
            predictor.joining.logits(graph), graph.contact.astype(np.float64),
        )  # fmt: skip
        for ids in one_by_one(box.ids) if box.sectionwise else [box.ids]:
            yield Example(box.name, number, ids, joined.ids, pieces, box.network_voxel_size_nm)


def one_by_one(ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """(x, y, z) ids of which one section is known, `SECTIONS` times."""
    depth = ids.shape[2]
    for n in range(min(SECTIONS, depth)):
        z = (2 * n + 1) * depth // (2 * min(SECTIONS, depth))
        one = np.full_like(ids, IGNORE_INDEX)
        one[..., z] = ids[..., z]
        yield one


def answered(example: Example, clicks: Sequence[Click], choose: Choose) -> Mask:
    """What the app answers, but for what only the network can say."""
    own, against = (
        np.array([c.position for c in clicks if c.positive == sign], np.int64).reshape(-1, 3)
        for sign in (True, False)
    )
    at = example.objects[tuple(own.T)]
    answer = Answer(example.asked(at[at > 0]), int(at[0]), _own(example, int(at[0])))
    mask = corrected(answer, own, against, example.voxel_size_nm, choose)
    if not at[0]:
        x, y, z = mask.shape
        mask = mask | ball((x, y, z), own[0], BEYOND, example.voxel_size_nm)
    mask[tuple(own.T)] = True
    mask[tuple(against.T)] = False
    return mask


def _own(example: Example, base: int) -> NDArray[np.bool_]:
    return (example.pieces.objects == base) & (base > 0)


def gains_of(
    answer: Answer, correction: Correction, changes: Sequence[Change], truth: Mask, known: Mask
) -> NDArray[np.float32]:
    """(C,) by how much the IoU rises with each change."""
    ids, mask, adds = answer.pieces.ids, answer.mask, correction.adds
    both, either = int((mask & truth).sum()), int(((mask | truth) & known).sum())
    moves = known & (mask != adds)
    count = len(answer.sizes)
    right = np.bincount(ids[moves & truth], minlength=count)
    wrong = np.bincount(ids[moves & ~truth], minlength=count)
    gains = []
    for change in changes:
        if change.pieces is not None:
            true, false = right[change.pieces].sum(), wrong[change.pieces].sum()
        else:
            voxels = change.mask(ids) & moves
            true = int((voxels & truth).sum())
            false = int(voxels.sum()) - true
        after = (both + true) / (either + false) if adds else (both - true) / (either - false)
        gains.append(after - both / max(either, 1))
    return np.array(gains, np.float32)


def decisions_of(example: Example, most: int, seed: int) -> Iterator[Decision]:
    """Decisions of sessions on a box; each is about the last click of a list."""
    known = example.ids >= 0
    for instance in clickable_objects(example.ids, LEAST, most):
        truth = example.ids == instance
        found: list[Decision] = []

        def answer(
            clicks: Sequence[Click], truth: Mask = truth, found: list[Decision] = found
        ) -> Mask:
            def choose(so_far: Answer, at: Correction, changes: Sequence[Change]) -> int:
                gains = gains_of(so_far, at, changes, truth, known)
                if at.point == clicks[-1].position:
                    found.append(Decision(example.group, seen_of(so_far, at, changes), gains))
                draw = np.random.default_rng([seed, zlib.crc32(repr(at.point).encode())])
                if draw.random() < BEST:
                    return int(gains.argmax())
                return int(draw.integers(len(changes)))

            return answered(example, clicks, choose)

        simulate_clicks(
            answer, truth, known, example.voxel_size_nm, _generator(example, instance, seed),
            CLICKS, CLICKS,
        )  # fmt: skip
        yield from found


def qualities(
    example: Example, choose: Choose, most: int, seed: int, clicks: int = CLICKS
) -> Iterator[list[float]]:
    """IoU after each click of sessions on a box."""
    known = example.ids >= 0
    for instance in clickable_objects(example.ids, LEAST, most):
        truth = example.ids == instance
        _, quality = simulate_clicks(
            lambda given: answered(example, given, choose), truth, known, example.voxel_size_nm,
            _generator(example, instance, seed), clicks, clicks,
        )  # fmt: skip
        yield quality + quality[-1:] * (clicks - len(quality))


def _generator(example: Example, instance: int, seed: int) -> np.random.Generator:
    return seeded_generator(f"{example.name} {example.number} {seed}", instance)


def fit_meaning(decisions: Sequence[Decision], steps: int = 2000, seed: int = 0) -> Meaning:
    """Fit a chooser: make the expected gain of a choice drawn by its softmax as large as it gets.

    Args:
        decisions: of sessions; data sets count alike by the root of their decisions.
        steps: of AdamW.
        seed: of weights and batches. The mean of several fits decides, which err in other places.
    """
    rows = np.concatenate([d.seen for d in decisions])
    shift, scale = rows.mean(0), rows.std(0) + 1e-3
    widest = max(len(d.gains) for d in decisions)
    x = torch.zeros(len(decisions), widest, rows.shape[1])
    gains = torch.zeros(len(decisions), widest)
    there = torch.zeros(len(decisions), widest, dtype=torch.bool)
    for i, each in enumerate(decisions):
        count = len(each.gains)
        x[i, :count] = torch.from_numpy((each.seen - shift) / scale)
        gains[i, :count] = torch.from_numpy(each.gains)
        there[i, :count] = True
    gains = torch.where(gains < 0, LOSS * gains, gains)
    names = [d.group for d in decisions]
    weights = torch.tensor([names.count(n) ** -0.5 for n in names])

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        pick = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        return _regret(net(x[pick])[..., 0], gains[pick], there[pick])

    members = [fitted_layers(x.shape[2], loss, steps, seed + n, decay=1e-2) for n in range(MEMBERS)]
    return Meaning(
        Perceptron(averaged(members), shift.astype(np.float32), scale.astype(np.float32))
    )


def _regret(scores: Tensor, gains: Tensor, there: Tensor) -> Tensor:
    """What a drawn choice loses on average, less a little for being open."""
    shares = scores.masked_fill(~there, -1e9).softmax(1)
    entropy = -(shares * (shares + 1e-9).log()).sum(1)
    return -(shares * gains).sum(1).mean() - OPEN * entropy.mean()


def report(name: str, sessions: Sequence[list[float]]) -> None:
    """Print IoU after 1, 2, 3, 5 and 7 clicks, and how many clicks lose."""
    table = np.array(sessions)
    lost = (np.diff(table, axis=1) < -0.1).mean()
    means = " ".join(f"{table[:, n - 1].mean():.3f}" for n in (1, 2, 3, 5, 7))
    print(f"{name}: {len(table)} objects, IoU {means}, lose {lost:.1%}", flush=True)


def check(
    examples: Sequence[Example], decisions: Sequence[Decision], objects: int, seed: int
) -> None:
    """Leave one data set out at a time."""
    pooled: dict[str, list[list[float]]] = {"fitted without it": [], "plain rule": []}
    for group in sorted({e.group for e in examples}):
        meaning = fit_meaning([d for d in decisions if d.group != group])
        for name, choose in (("fitted without it", meaning.choose), ("plain rule", PLAIN.choose)):
            own = [e for e in examples if e.group == group]
            found = [q for e in own for q in qualities(e, choose, objects, seed)]
            report(f"{group}, {name}", found)
            pooled[name] += found
    for name, found in pooled.items():
        report(f"all, {name}", found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, fit, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--items", type=int, default=MOST_ITEMS, help="of each data set")
    parser.add_argument("--boxes", type=int, default=4, help="of each item, at most")
    parser.add_argument("--objects", type=int, default=12, help="of each box, at most")
    parser.add_argument("--check", action="store_true", help="leave data sets out, store nothing")
    args = parser.parse_args(arguments)
    predictor = load_predictor(args.weights, load_settings(args.config), "cpu")
    examples, decisions = [], []
    for example in examples_of(args.studies, predictor, args.items, args.boxes):
        started = time.perf_counter()
        found = [d for seed in (1, 2) for d in decisions_of(example, args.objects, seed)]
        examples.append(example)
        decisions += found
        seconds = time.perf_counter() - started
        print(f"{example.name}: {len(found)} decisions, {seconds:.0f} s", flush=True)
    if args.check:
        if len({e.group for e in examples}) < 2:
            parser.error("--check leaves one data set out: give studies of two at least")
        check(examples, decisions, args.objects, 3)
        return 0
    store(args.weights, {"meaning": fit_meaning(decisions).to_dict()})
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
