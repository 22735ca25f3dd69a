"""Learn from a study's labels: rows, refit, gate, and the file that keeps what came of it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import torch

from lib.adaptation.background import one_core
from lib.adaptation.gate import Figure, Verdict, judge
from lib.adaptation.grouping import Grouping, Prepared, learn_grouping, prepare_grouping
from lib.adaptation.item_rows import item_rows, no_rows
from lib.adaptation.marks import marks_of
from lib.adaptation.network import Network
from lib.adaptation.refit import RefitOptions, change_of, refit, scaled
from lib.adaptation.rehearsal import Reservoir
from lib.adaptation.row_losses import Logits
from lib.adaptation.rows import FOLDS, Rows
from lib.annotation.versions import versions
from lib.configs.settings import AdaptationSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import CLASSES, StudyHeads
from lib.prediction.features import Shelf
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.learned import Learned, Stored, load_heads, save_heads
from lib.volumes.errors import VolumeError
from lib.volumes.study import TOUCHED, Study, StudyItem

logger = logging.getLogger("neuropil.adaptation")


class StudyLearner:
    """Refits a study's heads to its labels; rows of items that did not change are kept.

    Args:
        study: the study.
        settings: of the refit.
        shelf: where an item's features are kept between runs; None: nowhere.
    """

    def __init__(
        self,
        study: Study,
        settings: AdaptationSettings,
        shelf: Callable[[StudyItem], Shelf | None] = lambda item: None,
    ) -> None:
        self.study, self.settings, self.shelf = study, settings, shelf
        self._kept: dict[str, tuple[str, Rows]] = {}

    def labels(self) -> str:
        """What identifies the labels that would be learned now; "" where there are none."""
        states = [f"{item.id} {_label_state(item)}" for item in self._items()]
        return (
            hashlib.blake2b("\n".join(states).encode(), digest_size=16).hexdigest()
            if states
            else ""
        )

    def is_current(self, digest: str) -> bool:
        """Whether the stored heads were learned from these labels on these weights."""
        try:
            stored = load_heads(self.study.root)
        except ValueError:
            return False
        if stored is None:
            return not self.labels()
        return stored.learned.parent == digest and stored.learned.labels == self.labels()

    def learn(self, network: Network) -> Stored:
        """Refit to all that is annotated now, and keep what the gate lets pass.

        Raises:
            OSError: the study cannot be written.
        """
        began = time.monotonic()
        labels = self.labels()
        rows = self._rows(network)  # computes the features that all need, on all cores
        with ThreadPoolExecutor(1, "objects") as beside, one_core():
            prepared = beside.submit(self._prepared, network)
            heads, verdict = fit_and_judge(
                rows, network.net, network.hierarchy, network.reservoir,
                refit_options(self.settings),
            )  # fmt: skip
            learned = self._learned(network, labels, rows, verdict, began)
            stored = Stored(learned, heads, self._history(), grouping=heads)
            save_heads(self.study.root, stored)  # in use already while objects are learned
            marked = prepared.result()
            if marked.marks:
                found = learn_grouping(marked, network, heads)
                stored = with_objects(stored, found, time.monotonic() - began)
                save_heads(self.study.root, stored)
        return stored

    def _prepared(self, network: Network) -> Prepared:
        """What is learned of objects beside the classes."""
        with one_core():
            most = self.settings.most_object_voxels
            marks = marks_of(self._items(), network, most, self.shelf)
            return prepare_grouping(marks, network, self.settings)

    def _learned(
        self, network: Network, labels: str, rows: Rows, verdict: Verdict, began: float
    ) -> Learned:
        """What was learned of classes."""
        known = rows.sets != network.hierarchy.unknown
        voxels = round(float(rows.weight[known].double().sum()))
        beside = any(self.study.item(name).has_label(TOUCHED) for name in self._kept)
        return Learned(
            sentence(verdict, len(self._kept), voxels, beside),
            verdict.passed,
            network.digest,
            labels,
            [asdict(figure) for figure in verdict.figures],
            len(self._kept),
            voxels,
            round(time.monotonic() - began, 2),
        )

    def _history(self) -> tuple[Learned, ...]:
        try:
            before = load_heads(self.study.root)
        except ValueError:
            return ()
        return () if before is None else (*before.history, before.learned)

    def _items(self) -> list[StudyItem]:
        """Items to learn from: those that annotators submitted to, else all that have labels."""
        labelled = [i for i in self.study.items() if i.has_label("final") and _trains(i)]
        submitted = [i for i in labelled if any(not v.rejected for v in versions(self.study, i.id))]
        return submitted or labelled

    def _rows(self, network: Network) -> Rows:
        items = self._items()
        share = max(1, self.settings.most_windows // max(len(items), 1))
        fresh: dict[str, tuple[str, Rows]] = {}
        for item in items[: self.settings.most_windows]:
            state = f"{_label_state(item)} {network.digest} {share}"
            kept = self._kept.get(item.id)
            if kept is None or kept[0] != state:
                kept = (state, item_rows(item, network, self.settings, share, self.shelf(item)))
            fresh[item.id] = kept
        self._kept = {name: kept for name, kept in fresh.items() if len(kept[1])}
        if not self._kept:
            return no_rows(network.net.feature_channels + FILTERS)
        return Rows.joined([rows for _, rows in self._kept.values()])


def fit_and_judge(
    rows: Rows,
    net: NeuropilNet,
    hierarchy: LabelHierarchy,
    reservoir: Callable[[], Reservoir],
    options: RefitOptions,
) -> tuple[StudyHeads | None, Verdict]:
    """Study heads from rows, and what the gate says of them.

    Returns:
        the heads as they are to be used (None where nothing is), the verdict.
    """
    known = rows.sets != hierarchy.unknown
    before = Logits.of(net, rows.features)
    if not bool(known.any()):
        return None, judge(rows, before, torch.zeros_like(before.classes), hierarchy)
    rehearsed = reservoir()
    rehearsal = None
    if len(rehearsed.sets):
        features = rehearsed.features.float()
        logits = Logits.of(net, features)
        rehearsal = (features, rehearsed.sets, logits)
    with torch.enable_grad():
        models = refit(rows, before, rehearsal, [*range(FOLDS), None], hierarchy, options)
    changes = torch.zeros_like(before.classes)
    for fold, model in enumerate(models[:FOLDS]):
        inside = rows.fold == fold
        changes[inside] = change_of(model, rows.features[inside])[CLASSES]
    verdict = judge(rows, before, changes, hierarchy, options.seed)
    if not verdict.passed:
        return None, verdict
    heads = scaled(models[-1], verdict.strength)
    heads.used = torch.cat([verdict.used, verdict.groups])[: len(heads.used)]
    return heads, verdict


def with_objects(stored: Stored, found: Grouping, seconds: float) -> Stored:
    """What was learned of classes, and what of objects."""
    learned, objects = stored.learned, found.learned
    learned = replace(
        learned,
        sentence=f"{learned.sentence} Marked {objects.sentence}.",
        seconds=round(seconds, 2),
        used=learned.used or objects.used,
    )
    joining = objects.joining if objects.used else None
    return replace(stored, learned=learned, grouping=found.heads, joining=joining)


def refit_options(settings: AdaptationSettings) -> RefitOptions:
    """How the settings say that heads are refitted."""
    return RefitOptions(
        steps=settings.steps,
        rate=settings.learning_rate,
        width=settings.width,
        rehearsal=settings.rehearsal_weight,
        unknown=settings.unknown_weight,
    )


def sentence(verdict: Verdict, items: int, voxels: int, beside: bool = False) -> str:
    """What was learned from how much, before and after, and whether it is in use.

    Args:
        beside: some of the voxels may be such as were left as they were shown beside labels.
    """
    what = "voxels, labelled or left as shown beside labels," if beside else "labelled voxels"
    source = f"{voxels:,} {what} in {items} item{'' if items == 1 else 's'}"
    if not voxels:
        return "Nothing to learn from: no voxel of a known class or group is annotated."
    told = "; ".join(_told(figure) for figure in verdict.figures)
    if verdict.passed:
        return f"Learned from {source}, judged on parts held back: {told}."
    detail = f" ({told})" if told else ""
    return f"Not used, from {source}: {verdict.reason}{detail}."


def _told(figure: Figure) -> str:
    if figure.one_sided and not figure.used:
        return (
            f"{figure.name} left as it was, since next to nothing is known that is not "
            f"{figure.name} (mark more of what else is there, or declare a region fully annotated)"
        )
    change = f"{figure.name} IoU {figure.before:.2f} -> {figure.after:.2f}"
    return f"{change}, in use" if figure.used else f"{change}, left as it was"


def _trains(item: StudyItem) -> bool:
    """Whether an item may be learned from; one that cannot be read stops none of the others."""
    try:
        return item.record.split != "val"
    except VolumeError as error:
        logger.warning("not learned from: %s", error)
        return False


def _label_state(item: StudyItem) -> str:
    """Changes whenever the item's labels, record or image do."""
    parts = []
    for path in (item.label_path("final"), item.image_path):
        found = path.stat()
        parts.append(f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}")
    return f"{' '.join(parts)} {item.voxel_size_nm}{' bright' * item.bright_membranes}"
