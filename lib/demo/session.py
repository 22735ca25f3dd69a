"""A whole annotation session without people: the loop of the app, on synthetic neuropil.

    next region -> click an object -> submit -> refit at once -> train -> measure -> again

The annotator is the ground truth. Everything else is what the server uses: the same queries,
clicks, submissions and training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from lib.adaptation.learner import StudyLearner
from lib.adaptation.network import Network
from lib.adaptation.rehearsal import reservoir_for
from lib.annotation.submissions import submit
from lib.annotation.versions import SubmissionOptions
from lib.clicks.answer import segment_clicked
from lib.clicks.source import Clicks, ClickSource
from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.engine.run import RunOptions, train
from lib.evaluation.evaluate import EvaluationOptions, evaluate
from lib.labels.hierarchy import LabelHierarchy
from lib.metrics.clicks import first_click, mask_iou, seeded_generator
from lib.networks.digests import digest_of
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import with_study_heads
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.predictor import Predictor, load_predictor
from lib.queries.select import Query, Strategy, next_region
from lib.queries.store import ScoreStore, weights_version
from lib.synthetic.generate import SyntheticVolume, generate
from lib.volumes.boxes import box_slices
from lib.volumes.study import Study, StudyItem

SESSION_SETTINGS = Path(__file__).parents[1] / "configs" / "session.yaml"
"""A network small enough to learn something while one watches."""

EXAMINED, WORKED_ON = "held-out", "volume"
WORK = "annotated-here"
"""Two studies: what the annotator works on, and a volume that only measures."""


@dataclass(frozen=True)
class SessionPlan:
    """How long and how large a session is.

    Args:
        folder: for studies, weights and runs; empty or absent.
        rounds: of annotation and training.
        regions: annotated a round.
        steps: of training a round.
        size: (X, Y, Z) voxels of both volumes.
        voxel_size_nm: (x, y, z).
        strategy: that chooses the regions, once there are weights.
        seed: of everything.
    """

    folder: Path
    rounds: int = 3
    regions: int = 3
    steps: int = 120
    size: tuple[int, int, int] = (96, 96, 24)
    voxel_size_nm: tuple[float, float, float] = (8.0, 8.0, 40.0)
    strategy: Strategy = "uncertainty"
    seed: int = 0


@dataclass(frozen=True)
class RoundFigures:
    """What a round gave.

    Args:
        annotated_share: voxels of the working volume that are known.
        mean_iou: over the classes of the held-out volume, after training.
        click_iou: of one click on one object of each region, before training; None in the
            first round, which has no weights to click with.
        refit_iou: the same with the heads that were refitted to the round's annotation at once,
            before training; None in the first round.
        published: whether the new weights were better and replaced the old.
        reasons: why each region was chosen.
    """

    annotated_share: float
    mean_iou: float
    click_iou: float | None
    refit_iou: float | None
    published: bool
    reasons: tuple[str, ...]


def simulate_session(
    plan: SessionPlan, settings: Settings, note: Callable[[str], None] = lambda sentence: None
) -> list[RoundFigures]:
    """Run a session.

    Args:
        plan: its size.
        settings: of the network, the training and the queries.
        note: told what happens, in sentences.

    Returns:
        The figures of each round.

    Raises:
        ValueError: the folder holds something already.
    """
    if plan.folder.exists() and any(plan.folder.iterdir()):
        raise ValueError(f"{plan.folder}: expected an empty or new folder for the session")
    session = _Session(plan, settings, note)
    return [session.round(number) for number in range(plan.rounds)]


class _Session:
    def __init__(self, plan: SessionPlan, settings: Settings, note: Callable[[str], None]) -> None:
        self.plan, self.settings, self.note = plan, settings, note
        hierarchy = hierarchy_of(settings)
        self.study = Study(plan.folder / "study", hierarchy)
        self.examined = Study(plan.folder / "examined", hierarchy)
        self.weights = plan.folder / "model" / "neuropil.pt"
        self.truth = generate(plan.size, plan.voxel_size_nm, plan.seed)
        self.study.add_item(WORKED_ON, self.truth.image, plan.voxel_size_nm)
        other = generate(plan.size, plan.voxel_size_nm, plan.seed + 1)
        sets = np.where(
            other.fine < 0, hierarchy.unknown, 1 << np.maximum(other.fine, 0).astype(np.int32)
        )
        self.examined.add_item(
            EXAMINED, other.image, plan.voxel_size_nm, sets.astype(np.int32), split="val"
        )
        self.store = ScoreStore(self.study, settings.queries)
        self.random = np.random.default_rng(plan.seed)
        note(f"a volume of {plan.size} voxels to annotate, and one like it to measure on")

    def round(self, number: int) -> RoundFigures:
        """Annotate some regions, train, measure."""
        queries, clicks = [], []
        before = load_predictor(self.weights, self.settings) if self.weights.exists() else None
        for _ in range(self.plan.regions):
            query = self._next()
            if before is not None:
                clicks.append(self._click(before, query))
            self._annotate(query)
            queries.append(query)
        refit_iou = None if before is None else self._learn_at_once(before)
        result = train(
            self.settings,
            RunOptions(
                studies=(self.study.root, self.examined.root),
                out_dir=self.plan.folder / "runs" / f"round-{number + 1}",
                published=self.weights,
                start=self.weights if self.weights.exists() else None,
                max_steps=self.plan.steps,
                device="cpu",
            ),
        )
        after = load_predictor(self.weights, self.settings)
        figures = RoundFigures(
            self._known_share(),
            self._mean_iou(after),
            float(np.mean(clicks)) if clicks else None,
            refit_iou,
            result.published,
            tuple(q.reason for q in queries),
        )
        clicked = "" if figures.click_iou is None else f", one click {figures.click_iou:.2f} IoU"
        self.note(
            f"round {number + 1}: {figures.annotated_share:.1%} annotated, held-out mean IoU "
            f"{figures.mean_iou:.3f}{clicked}; {queries[-1].reason}"
        )
        return figures

    def _learn_at_once(self, predictor: Predictor) -> float:
        """What the server does after a submission: refit the heads, use them if they gain."""
        digest = digest_of(self.weights)
        net, hierarchy = predictor.net, predictor.hierarchy
        network = Network(
            net, hierarchy, digest, predictor.finest_nm, predictor.most_split,
            self.settings.inference, lambda: reservoir_for(self.weights, digest, net, hierarchy),
            predictor.joining,
        )  # fmt: skip
        before = self._mean_iou(predictor)
        shelf = Shelf(FeatureCache(self.settings.inference.cache_bytes), digest, WORKED_ON)
        stored = StudyLearner(self.study, self.settings.adaptation, lambda _: shelf).learn(network)
        after = self._mean_iou(replace(predictor, net=with_study_heads(net, stored.heads)))
        self.note(
            f"refitted in {stored.learned.seconds:.1f} s, held-out mean IoU {before:.3f} -> "
            f"{after:.3f}: {stored.learned.sentence}"
        )
        return after

    def _mean_iou(self, predictor: Predictor) -> float:
        """Of the held-out volume's classes."""
        measured = evaluate(predictor, [self.examined], EvaluationOptions(split="all"))
        scores = measured.items[0].classes
        assert scores is not None
        return scores.result().mean_iou

    def _item(self) -> StudyItem:
        return self.study.item(WORKED_ON)

    def _next(self) -> Query:
        version = weights_version(self.weights)
        if version:

            def load() -> tuple[NeuropilNet, Settings, LabelHierarchy]:
                found = load_predictor(self.weights, self.settings)
                return found.net, self.settings, found.hierarchy

            self.store.score(load, version)
        strategy = self.plan.strategy if version else "random"
        return next_region(self.store, strategy, weights=version, client=WORK, rng=self.random)

    def _click(self, predictor: Predictor, query: Query) -> float:
        """IoU of the answer to one click on the region's largest object."""
        ids = self.truth.instance[box_slices(query.box)]
        found, counts = np.unique(ids[ids > 0], return_counts=True)
        if not len(found):
            return 1.0
        target = self.truth.instance == found[counts.argmax()]
        item = self._item()
        image = item.open_image()
        frame = predictor.frame(image.shape, item.voxel_size_nm)
        click = first_click(
            target, item.voxel_size_nm, seeded_generator(item.id, int(found[counts.argmax()]))
        )
        source = ClickSource(
            predictor.net,
            weights_version(self.weights),
            frame.view(image),
            item.id,
            frame.network_voxel_size_nm,
            FeatureCache(self.settings.inference.cache_bytes),
            self.settings.inference,
            predictor.hierarchy,
            predictor.joining,
        )
        answer = segment_clicked(
            source, Clicks(frame.to_network([click.position]).tolist(), kind="auto")
        )
        mask = np.zeros(image.shape, bool)
        mask[box_slices(frame.viewer_box(answer.box))] = frame.mask_to_viewer(
            answer.mask, answer.box
        )
        return mask_iou(target, mask, self.truth.instance >= 0)

    def _annotate(self, query: Query) -> None:
        """Paint the region as an annotator would, a segment an object, and submit it."""
        painted, names = paint_region(self.truth, query, self.study.hierarchy.class_names)
        item = self._item()
        affine = nibabel.Nifti1Image.from_filename(item.image_path).affine
        drawn = self.plan.folder / "drawn.nii.gz"
        nibabel.save(nibabel.Nifti1Image(painted, affine), drawn)  # type: ignore[no-untyped-call]
        info = [{"name": name, "idx": k + 1} for k, name in enumerate(names)]
        submit(self.study, item.id, drawn, info, SubmissionOptions(roi=query.box, mode="merge"))
        drawn.unlink()

    def _known_share(self) -> float:
        return float(np.mean(self._item().read_class_sets() != self.study.hierarchy.unknown))


def paint_region(
    truth: SyntheticVolume, query: Query, class_names: tuple[str, ...]
) -> tuple[NDArray[np.uint16], list[str]]:
    """The segments an annotator paints in a region, numbered as Slicer numbers them.

    Returns:
        (X, Y, Z) uint16 with values 1..n inside the region, and the n names: "axon 17" for an
        object, "extracellular space" for a class without objects.
    """
    painted = np.zeros(truth.fine.shape, np.uint16)
    where = box_slices(query.box)
    fine, ids = truth.fine[where], truth.instance[where]
    part, names = painted[where], []
    for class_id in np.unique(fine[fine >= 0]):
        of_class = fine == class_id
        for number in np.unique(ids[of_class]):
            names.append(class_names[class_id] + (f" {number}" if number > 0 else ""))
            part[of_class & (ids == number)] = len(names)
    return painted, names
