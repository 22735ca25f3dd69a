"""The gate: gains on held-back parts pass, harm and chance do not, class by class."""

import pytest
import torch
from adaptation_cases import AXON, DENDRITE, HIERARCHY, MYELIN, UNKNOWN, rows_of, saying

from lib.adaptation.gate import judge
from lib.adaptation.learner import sentence
from lib.adaptation.row_losses import Logits

COUNT = 1600
MITOCHONDRIA = HIERARCHY.class_names.index("mitochondria")


def logits_of(classes: torch.Tensor, sure: float = 5.0) -> torch.Tensor:
    return sure * torch.nn.functional.one_hot(classes, HIERARCHY.num_classes).float()


def case(truth: torch.Tensor, before: torch.Tensor, after: torch.Tensor, blocks: int = 16):
    """A verdict on rows of known truth, given what was and what would be said."""
    rows = rows_of(torch.zeros((len(truth), 2)), truth, blocks)
    old = Logits(logits_of(before), torch.zeros((len(truth), HIERARCHY.num_groups)))
    return judge(rows, old, logits_of(after) - logits_of(before), HIERARCHY)


def half(first: int, second: int) -> torch.Tensor:
    """First class, then the second one, in pairs that every block gets both of."""
    return torch.tensor([first, second]).repeat(COUNT // 2).sort(descending=first > second)[0]


def mistaken(truth: torch.Tensor, share: float, wrong: int, of: int, seed: int = 0) -> torch.Tensor:
    """The truth, but for a share of one class that is called another."""
    draw = torch.rand(len(truth), generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(draw & (truth == of), wrong, truth)


def test_a_gain_passes_and_is_told_in_figures() -> None:
    truth = half(AXON, DENDRITE)
    before = mistaken(truth, 0.5, MYELIN, AXON)
    verdict = case(1 << truth, before, truth)
    assert verdict.passed and verdict.reason == "" and verdict.strength == 1.0
    axon = next(f for f in verdict.figures if f.name == "axon")
    right = float(((before == AXON) & (truth == AXON)).sum()) / float((truth == AXON).sum())
    assert axon.used and abs(axon.before - right) < 1e-6 and axon.after == 1.0
    assert axon.voxels == 10 * int((truth == AXON).sum()) and axon.sure == 1.0


def test_harm_is_refused() -> None:
    truth = half(AXON, DENDRITE)
    verdict = case(1 << truth, truth, mistaken(truth, 0.3, MYELIN, AXON))
    assert not verdict.passed and not verdict.used.any() and not verdict.groups.any()
    assert "better" in verdict.reason and not any(f.used for f in verdict.figures)


def test_labels_that_say_nothing_about_the_image_are_refused() -> None:
    """Half of everything is called axon at random: calling all of it axon raises the IoU."""
    random = torch.rand(COUNT, generator=torch.Generator().manual_seed(2)) < 0.5
    truth = torch.where(random, AXON, DENDRITE)
    rarely = mistaken(torch.full((COUNT,), DENDRITE), 0.05, AXON, DENDRITE, seed=3)
    verdict = case(1 << truth, rarely, torch.full((COUNT,), AXON))
    axon = next(f for f in verdict.figures if f.name == "axon")
    assert axon.after > axon.before + 0.3 and axon.sure < 0.9
    assert not verdict.passed


def test_a_small_gain_within_one_box_is_not_trusted() -> None:
    truth = half(AXON, DENDRITE)
    before, after = (mistaken(truth, share, MYELIN, AXON) for share in (0.10, 0.08))
    verdict = case(1 << truth, before, after)
    axon = next(f for f in verdict.figures if f.name == "axon")
    assert not verdict.passed and axon.after > axon.before


def test_a_gain_in_one_block_only_is_chance() -> None:
    truth = half(AXON, DENDRITE)
    rows_in_one_block = torch.arange(COUNT) % 16 == 3
    before = torch.where(rows_in_one_block & (truth == AXON), MYELIN, truth)
    assert not case(1 << truth, before, truth).passed


def test_class_by_class_one_gains_and_the_other_stays() -> None:
    """Axon gets better, myelin would get worse: the change is used for axon alone."""
    truth = torch.tensor([AXON, MYELIN, DENDRITE, DENDRITE]).repeat_interleave(COUNT // 4)
    before = mistaken(truth, 0.6, DENDRITE, AXON)
    after = mistaken(truth, 0.4, DENDRITE, MYELIN)
    verdict = case(1 << truth, before, after)
    assert bool(verdict.used[AXON]) and not bool(verdict.used[MYELIN])
    told = {f.name: f for f in verdict.figures}
    assert told["axon"].used and told["axon"].after > told["axon"].before + 0.3
    assert not told["myelin"].used and told["myelin"].after >= told["myelin"].before - 0.005


def test_too_little_says_so() -> None:
    truth = half(AXON, DENDRITE)
    verdict = case(1 << truth, mistaken(truth, 0.5, MYELIN, AXON), truth, blocks=4)
    assert not verdict.passed and "too little to tell" in verdict.reason
    nothing = case(torch.full((COUNT,), UNKNOWN), truth, truth)
    assert not nothing.passed and "no class" in nothing.reason


def test_one_class_alone_judges_nothing_and_what_is_missing_is_said() -> None:
    """One clicked axon and nothing said of the rest: IoU 1 by calling everything axon."""
    truth = torch.full((COUNT,), UNKNOWN)
    truth[: COUNT // 4] = 1 << AXON
    before = torch.full((COUNT,), DENDRITE)
    before[: COUNT // 8] = AXON
    found = before.clone()
    found[: COUNT // 4] = AXON  # all that is known of it, and nothing more elsewhere
    for after in (torch.full((COUNT,), AXON), found):
        refused = case(truth, before, after)
        assert not refused.passed and not refused.figures
        assert sentence(refused, 1, COUNT) == (
            "Not used, from 1,600 labelled voxels in 1 item: only axon is annotated; mark "
            "something that is not axon, then it can be judged."
        )


def test_organelles_are_painted_alone_and_must_not_flood() -> None:
    """Mitochondria are painted, and nothing is said of the rest."""
    truth = torch.full((COUNT,), UNKNOWN)
    truth[: COUNT // 4] = 1 << MITOCHONDRIA
    before = torch.full((COUNT,), DENDRITE)
    before[: COUNT // 8] = MITOCHONDRIA
    found = before.clone()
    found[: COUNT // 4] = MITOCHONDRIA  # all that is known, and nothing more elsewhere
    verdict = case(truth, before, found)
    assert bool(verdict.used[MITOCHONDRIA])
    assert "mitochondria IoU 0.50 -> 1.00, in use" in sentence(verdict, 1, COUNT)
    flooded = case(truth, before, torch.full((COUNT,), MITOCHONDRIA))
    assert not flooded.passed
    assert "nothing is known that is not mitochondria" in sentence(flooded, 1, COUNT)
    little = before.clone()
    little[: COUNT // 8 + COUNT // 50] = MITOCHONDRIA
    assert not case(truth, before, little).passed, "less than 0.1 of the IoU"


@pytest.mark.parametrize("other", [1 << DENDRITE, (1 << DENDRITE) | (1 << MYELIN)])
def test_what_cannot_be_the_class_is_its_other_side(other: int) -> None:
    truth = torch.full((COUNT,), UNKNOWN)
    truth[: COUNT // 4] = 1 << AXON
    truth[COUNT // 4 : COUNT // 2] = other
    before = torch.full((COUNT,), DENDRITE)
    before[: COUNT // 8] = AXON
    right = before.clone()
    right[: COUNT // 4] = AXON
    assert bool(case(truth, before, right).used[AXON])
    assert not case(truth, before, torch.full((COUNT,), AXON)).passed


def test_a_wider_set_is_no_other_side_and_too_little_of_one_is_said() -> None:
    """ "Axon or dendrite" may be axon."""
    pair = (1 << AXON) | (1 << DENDRITE)
    truth = torch.tensor([1 << AXON, pair]).repeat_interleave(COUNT // 2)
    before, after = (torch.full((COUNT,), c) for c in (MYELIN, AXON))
    told = case(truth, before, after).reason
    assert told.startswith(
        "only dendrite or axon is annotated; mark something that is not dendrite"
    )
    truth = torch.full((COUNT,), 1 << AXON)
    truth[:16] = 1 << MYELIN  # fewer voxels than can be judged
    told = case(truth, before, after).reason
    assert told.startswith("hardly anything but axon is annotated; mark more that is not axon")


def test_one_that_cannot_be_judged_stays_beside_one_that_can() -> None:
    """Of dendrite the other side is known, of axon it is not; the change gains for both."""
    truth = torch.full((COUNT,), AXON)
    truth[:128] = DENDRITE
    before = mistaken(mistaken(truth, 0.5, MYELIN, AXON), 0.5, MYELIN, DENDRITE, seed=1)
    verdict = case(1 << truth, before, truth)
    assert bool(verdict.used[DENDRITE]) and not bool(verdict.used[AXON])
    told = {f.name: (f.used, f.one_sided) for f in verdict.figures}
    assert told == {"axon": (False, True), "dendrite": (True, False)}


def test_an_annotated_set_of_classes_is_judged_as_one() -> None:
    """ "Dendrite or axon": which of the two is said does not matter."""
    pair = (1 << AXON) | (1 << DENDRITE)
    truth = torch.tensor([pair, 1 << MYELIN]).repeat_interleave(COUNT // 2)
    right = torch.tensor([DENDRITE, MYELIN]).repeat_interleave(COUNT // 2)
    before = mistaken(right, 0.5, MYELIN, DENDRITE)
    verdict = case(truth, before, torch.where(right == DENDRITE, AXON, right))
    assert bool(verdict.used[AXON]) and bool(verdict.used[DENDRITE])


def test_the_same_rows_give_the_same_verdict() -> None:
    truth = half(AXON, DENDRITE)
    one, other = (case(1 << truth, mistaken(truth, 0.1, MYELIN, AXON), truth) for _ in range(2))
    assert one.figures == other.figures
    assert saying(AXON, 2).classes.shape == (2, HIERARCHY.num_classes)
