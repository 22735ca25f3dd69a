"""How each strategy chooses among regions: from arrays of figures to one number.

Every function takes the regions that may be chosen and returns the index of one of them and
why. Nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.configs.settings import QuerySettings

Row = NDArray[np.float32]

NON_TISSUE = "non_tissue"


@dataclass(frozen=True)
class Candidates:
    """Figures of the regions that may be chosen, N in all; see ItemScores for their meaning.

    Args:
        entropy: (N,).
        disagreement: (N,).
        prompted: (N,), NaN where not known.
        class_entropy: (N, C).
        class_share: (N, C).
        features: (N, F).
        known: (N,) share of each region that is annotated already.
    """

    entropy: Row
    disagreement: Row
    prompted: Row
    class_entropy: Row
    class_share: Row
    features: Row
    known: Row

    @property
    def unknown(self) -> Row:
        """(N,) share of each region that is still open."""
        return np.asarray(1.0 - self.known, np.float32)


@dataclass(frozen=True)
class Choice:
    """The chosen region.

    Args:
        index: among the candidates.
        score: of the strategy, higher is more worth annotating.
        reason: in words.
    """

    index: int
    score: float
    reason: str


def choose_random(
    candidates: Candidates, foreground: tuple[int, ...], rng: np.random.Generator
) -> Choice:
    """Foreground-aware random: in proportion to the predicted share of tissue.

    Args:
        foreground: the classes that count as tissue.
    """
    tissue = candidates.class_share[:, list(foreground)].sum(1) * candidates.unknown
    weight = tissue.astype(float) + 1e-6
    index = int(rng.choice(len(weight), p=weight / weight.sum()))
    share = candidates.class_share[index, list(foreground)].sum()
    return Choice(index, float(share), f"chosen at random; {share:.0%} of it is tissue")


def choose_uncertain(
    candidates: Candidates,
    class_names: tuple[str, ...],
    served: int,
    queries: QuerySettings,
    rng: np.random.Generator,
) -> Choice:
    """Predictive entropy, by class for most queries, with power noise that decays.

    Two thirds of the queries first draw a class among those that are predicted anywhere, and
    rank regions by the entropy of the voxels predicted as it; rare classes are asked for as
    often as common ones. The others rank by the entropy of all voxels. The score to the power
    b, times exponential noise, decides; b grows with the number of queries.

    Source: class-stratified predictive entropy with log-scale power noise, ClaSP PE (TMLR 2026).
    """
    score, what = candidates.entropy, "mean entropy"
    if rng.random() < queries.class_share:
        present = np.flatnonzero(candidates.class_entropy.max(0) > 0)
        if len(present):
            picked = int(rng.choice(present))
            score = candidates.class_entropy[:, picked]
            what = f"uncertainty about {class_names[picked]}"
    score = score * candidates.unknown
    index = _noisy_best(score, sharpness(served, queries), rng)
    return Choice(index, float(score[index]), f"{what} {score[index]:.3f}, {_rank(score, index)}")


def choose_disagreement(
    candidates: Candidates, served: int, queries: QuerySettings, rng: np.random.Generator
) -> Choice:
    """Where the network contradicts itself.

    Fine against coarse head, and automatic against prompted classes. Each is divided by its
    mean over the candidates, so that neither drowns the other.
    """
    heads = candidates.disagreement / max(float(candidates.disagreement.mean()), 1e-6)
    prompted = np.nan_to_num(candidates.prompted, nan=0.0)
    clicks = prompted / max(float(prompted.mean()), 1e-6)
    score = (heads + clicks) * candidates.unknown
    index = _noisy_best(score, sharpness(served, queries), rng)
    what = (
        "automatic and prompted classes differ"
        if clicks[index] > heads[index]
        else "fine and coarse head differ"
    )
    ratio = max(heads[index], clicks[index])
    return Choice(
        index, float(score[index]), f"{what}, {ratio:.1f} times the mean, {_rank(score, index)}"
    )


def choose_diverse(
    candidates: Candidates, covered: Row, queries: QuerySettings, rng: np.random.Generator
) -> Choice:
    """The uncertain region least like what is annotated (greedy k-centre).

    Args:
        covered: (M, F) features of the regions annotated or handed out, M may be 0.

    Source: core-set selection by k-centre (Sener & Savarese, ICLR 2018), restricted to the
    most uncertain regions.
    """
    score = candidates.entropy * candidates.unknown
    kept = max(1, round(queries.diverse_share * len(score)))
    top = np.argsort(-score, kind="stable")[:kept]
    if not len(covered):
        index = int(top[0])
        return Choice(index, float(score[index]), f"mean entropy {score[index]:.3f}, the highest")
    both = np.concatenate([candidates.features[top], covered])
    mean, spread = both.mean(0), both.std(0) + 1e-6
    distance = _nearest_distance((both[:kept] - mean) / spread, (both[kept:] - mean) / spread)
    distance = distance * candidates.unknown[top]
    best = int(np.argmax(distance + 1e-9 * rng.random(len(distance))))
    return Choice(
        int(top[best]),
        float(distance[best]),
        f"of the {queries.diverse_share:.0%} most uncertain the one most unlike what is annotated "
        f"(distance {distance[best]:.1f})",
    )


def sharpness(served: int, queries: QuerySettings) -> float:
    """The power of the scores after so many queries: from the first to the settled value."""
    first, settled = queries.sharpness
    way = min(1.0, served / queries.settle_after)
    return float(first * (settled / first) ** way)


def _noisy_best(score: Row, power: float, rng: np.random.Generator) -> int:
    """argmax of power * log(score) + Gumbel noise: a draw in proportion to score ** power."""
    noise = rng.gumbel(size=len(score))
    return int(np.argmax(power * np.log(score.astype(float) + 1e-9) + noise))


def _rank(score: Row, index: int) -> str:
    return f"rank {int((score > score[index]).sum()) + 1} of {len(score)}"


def _nearest_distance(points: Row, centres: Row) -> Row:
    """(N,) distance of each point to its nearest centre, in pieces that fit the memory."""
    nearest = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(centres), 256):
        part = centres[start : start + 256]
        square = ((points**2).sum(1)[:, None] - 2 * points @ part.T + (part**2).sum(1)[None]).min(1)
        nearest = np.minimum(nearest, square)
    return np.asarray(np.sqrt(np.maximum(nearest, 0.0)), np.float32)
