"""The next region to annotate in a study, with its reason in words."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.queries.acquisition import (
    NON_TISSUE,
    Candidates,
    Choice,
    choose_disagreement,
    choose_diverse,
    choose_random,
    choose_uncertain,
)
from lib.queries.ledger import HandedOut, Ledger
from lib.queries.pools import NoRegion as NoRegion
from lib.queries.pools import Pool, gather, open_pools
from lib.queries.regions import centre
from lib.queries.store import ScoreStore
from lib.queries.volumes import is_volume, item_around
from lib.volumes.boxes import Box, Triple, box_slices
from lib.volumes.errors import VolumeError
from lib.volumes.listing import Skipped

Strategy = Literal["random", "uncertainty", "hierarchy", "diverse"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

TRIES = 24
"""Regions looked at when no scores tell where tissue is."""


@dataclass(frozen=True)
class Query:
    """A region to annotate.

    Args:
        item: item id.
        box: its voxels, in the item's own axes.
        centre: the middle voxel.
        strategy: that chose it.
        score: of that strategy.
        reason: in words.
        known_share: part of the region that is annotated already.
        skipped: files of the study that cannot be annotated, with the reason.
    """

    item: str
    box: Box
    centre: Triple
    strategy: str
    score: float
    reason: str
    known_share: float
    skipped: tuple[Skipped, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an answer in JSON."""
        return {
            "item": self.item,
            "roi": [v for span in self.box for v in span],
            "box": [list(span) for span in self.box],
            "centre": list(self.centre),
            "strategy": self.strategy,
            "score": self.score,
            "reason": self.reason,
            "known_share": self.known_share,
            "skipped": [{"file": s.name, "reason": s.reason} for s in self.skipped],
        }


def next_region(
    store: ScoreStore,
    strategy: Strategy,
    *,
    weights: str = "",
    client: str = "",
    rng: np.random.Generator | None = None,
    now: float | None = None,
) -> Query:
    """Choose a region and note that it was handed out.

    Items without scores are open to `random` only; a strategy that finds no scores at all
    answers with a random region and says so.

    Args:
        store: the study's scores.
        strategy: one of STRATEGIES.
        weights: version of the weights in use, to say when scores are stale.
        client: who asks.
        rng: source of chance; fresh by default.
        now: seconds since the epoch, for tests.

    Raises:
        NoRegion: nothing to hand out.
        ValueError: an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    now = time.time() if now is None else now
    rng = np.random.default_rng() if rng is None else rng
    ledger = Ledger(store.study.root, 60.0 * store.queries.reserve_minutes)
    with store.lock:
        pools, skipped = open_pools(store, ledger.recent(now), client)
        scored = [p for p in pools if p.scores is not None and len(p.open)]
        if scored:
            query = _from_scores(store, strategy, scored, pools, weights, ledger.served, rng)
        else:
            left = [p for p in pools if len(p.open)]
            query = _without_scores(store, strategy, left, skipped, rng)
        ledger.add(HandedOut(query.item, query.box, client, strategy, now))
        item = store.study.item(query.item)
        if is_volume(item):
            made, box = item_around(store.study, item, query.box, store.queries.view)
            query = replace(query, item=made.id, box=box, centre=centre(box))
    return replace(query, skipped=tuple(skipped))


def _from_scores(
    store: ScoreStore,
    strategy: Strategy,
    scored: list[Pool],
    pools: list[Pool],
    weights: str,
    served: int,
    rng: np.random.Generator,
) -> Query:
    candidates = gather(scored)
    hierarchy = store.study.hierarchy
    if strategy == "random":
        choice = choose_random(candidates, tissue_classes(hierarchy), rng)
    elif strategy == "uncertainty":
        names = hierarchy.class_names
        choice = choose_uncertain(candidates, names, served, store.queries, rng)
    elif strategy == "hierarchy":
        choice = choose_disagreement(candidates, served, store.queries, rng)
    else:
        choice = choose_diverse(
            candidates, _covered_features(pools, candidates), store.queries, rng
        )
    ends = np.cumsum([len(p.open) for p in scored])
    which = int(np.searchsorted(ends, choice.index, side="right"))
    pool = scored[which]
    region = int(pool.open[choice.index - (ends[which] - len(pool.open))])
    return _query(pool, region, strategy, choice, _remark(store, pool, weights))


def tissue_classes(hierarchy: LabelHierarchy) -> tuple[int, ...]:
    """The classes that are not in the group of non-tissue; all classes without such a group."""
    for (name, _), members in zip(hierarchy.groups, hierarchy.group_sets, strict=True):
        if normalize_name(name) == normalize_name(NON_TISSUE):
            return hierarchy.members(hierarchy.unknown & ~members)
    return hierarchy.members(hierarchy.unknown)


def _covered_features(pools: list[Pool], candidates: Candidates) -> NDArray[np.float32]:
    found = [p.scores.features[p.covered] for p in pools if p.scores is not None]
    width = candidates.features.shape[1]
    return np.concatenate([*found, np.zeros((0, width), np.float32)])


def _without_scores(
    store: ScoreStore,
    strategy: Strategy,
    pools: list[Pool],
    skipped: list[Skipped],
    rng: np.random.Generator,
) -> Query:
    """A random region that shows something: the most varied of a few, by its grey values."""
    sizes = np.array([len(p.open) for p in pools], float)
    best: tuple[float, Pool, int] | None = None
    tries = 0
    while tries < TRIES and sizes.any():
        which = int(rng.choice(len(pools), p=sizes / sizes.sum()))
        pool = pools[which]
        region = int(rng.choice(pool.open))
        x, y, z = pool.grid.box(region)
        section = (x, y, (z[0], z[0] + 1))
        try:
            part = np.asarray(pool.item.open_image()[box_slices(section)], float)
        except VolumeError as error:
            skipped.append(Skipped(pool.item.image_path.name, str(error)))
            sizes[which] = 0.0
            continue
        tries += 1
        spread = float(part.std())
        if best is None or spread > best[0]:
            best = (spread, pool, region)
        if spread > 0.02 * max(1.0, float(part.mean())):
            break
    if best is None:
        raise NoRegion("empty", f"no image can be read; {skipped[-1].name}: {skipped[-1].reason}")
    _, pool, region = best
    why = "chosen at random; no scores tell yet where tissue is"
    if strategy != "random":
        why = f"chosen at random: {_progress(store)}"
    return _query(pool, region, strategy, Choice(0, 0.0, why), "")


def _progress(store: ScoreStore) -> str:
    status = store.status()
    if status is not None and status.running:
        return f"the study is being scored, {status.done} of {status.total} items are done"
    return "no item has scores yet; run the scoring method `uncertainty`"


def _remark(store: ScoreStore, pool: Pool, weights: str) -> str:
    assert pool.scores is not None
    if weights and pool.scores.weights != weights:
        return "; the scores are of earlier weights"
    return ""


def _query(pool: Pool, region: int, strategy: str, choice: Choice, remark: str) -> Query:
    box = pool.grid.box(region)
    return Query(
        pool.item.id, box, centre(box), strategy, choice.score, choice.reason + remark,
        float(pool.known[region]),
    )  # fmt: skip
