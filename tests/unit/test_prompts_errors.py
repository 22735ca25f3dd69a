"""Points in errors: where they fall, what they say, and that they are a session's."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lib.configs.load import load_settings
from lib.prompts.errors import correct_errors, draw_rounds, every_second, thinned
from lib.prompts.points import NEGATIVE, PADDING, POSITIVE, PointPrompts
from lib.prompts.sampling import SampledPrompts

SHAPE = (8, 6, 4)


def sampled(batch: int = 1) -> SampledPrompts:
    """The object is the half x < 4; the last column is unknown. Three points, one positive."""
    target = torch.zeros(batch, *SHAPE, dtype=torch.bool)
    target[:, :4] = True
    known = torch.ones_like(target)
    known[:, :, -1] = False
    prompts = PointPrompts(
        torch.tensor([[[1, 1, 1], [6, 1, 1], [7, 2, 2]]] * batch),
        torch.tensor([[POSITIVE, NEGATIVE, NEGATIVE]] * batch),
        torch.full((batch, 3), 2),
        torch.ones(batch, 3, dtype=torch.bool),
    )
    return SampledPrompts(prompts, target, known)


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + k) for k in range(count)]


def constant(inside: Tensor) -> object:
    return lambda prompts: torch.where(every_second(inside), 1.0, -1.0)[:, None]


@pytest.mark.parametrize("seed", range(5))
def test_a_point_lies_in_the_more_common_error_and_says_what_is_true_there(seed: int) -> None:
    start = sampled()
    missing = start.target.clone()
    missing[:, 2:] = False  # misses x in 2..3
    missing[:, 7, 0, 0] = True  # and one voxel too many
    found = correct_errors(start, constant(missing), [1], generators(1, seed))  # type: ignore[arg-type]
    assert found.prompts.labels.tolist() == [[POSITIVE, POSITIVE, PADDING]]
    x, y, _ = found.prompts.coords[0, 1].tolist()
    assert x in (2, 3) and y < 5  # never where the truth is unknown
    assert found.prompts.coords[0, 0].tolist() == [1, 1, 1]
    extra = start.target.clone()
    extra[:, 4:6] = True
    found = correct_errors(start, constant(extra), [2], generators(1, seed))  # type: ignore[arg-type]
    assert found.prompts.labels.tolist() == [[POSITIVE, NEGATIVE, NEGATIVE]]
    assert all(x in (4, 5) for x, _, _ in found.prompts.coords[0, 1:].tolist())


def test_each_correction_sees_the_answer_to_the_points_before_it() -> None:
    seen: list[list[int]] = []

    def answer(prompts: PointPrompts) -> Tensor:
        seen.append(prompts.labels[0].tolist())
        return torch.full((1, 1, 4, 3, 4), -1.0)

    found = correct_errors(sampled(), answer, [2], generators(1))
    assert seen == [[POSITIVE, PADDING, PADDING], [POSITIVE, POSITIVE, PADDING]]
    assert (found.prompts.labels == POSITIVE).all()


def test_no_rounds_no_error_and_no_target_change_nothing_more() -> None:
    start = sampled(3)
    labels = start.prompts.labels.clone()
    labels[2] = PADDING  # a sample without a target
    start = replace(start, prompts=replace(start.prompts, labels=labels))
    found = correct_errors(start, constant(start.target), [0, 2, 2], generators(3))  # type: ignore[arg-type]
    assert found.prompts.labels.tolist() == [
        [POSITIVE, NEGATIVE, NEGATIVE],
        [POSITIVE, PADDING, PADDING],
        [PADDING] * 3,
    ]
    assert torch.equal(start.prompts.labels, labels)


def test_points_in_every_second_voxel_are_where_they_were() -> None:
    prompts = replace(sampled().prompts, voxel_size_nm=torch.tensor([[8.0, 8.0, 40.0]]))
    thin = thinned(prompts)
    assert thin.coords[0].tolist() == [[0, 0, 1], [3, 0, 1], [3, 1, 2]]
    assert thin.voxel_size_nm is not None and thin.voxel_size_nm.tolist() == [[16.0, 16.0, 40.0]]
    volume = torch.arange(48).view(1, 2, 6, 4)
    assert torch.equal(every_second(volume, 2), volume[:, :, ::2, ::2])
    assert torch.equal(every_second(volume), volume[:, ::2, ::2])


def test_rounds_are_drawn_evenly_and_fit_the_slots() -> None:
    drawn = draw_rounds(2, generators(300))
    assert {n: drawn.count(n) > 60 for n in (0, 1, 2)} == {0: True, 1: True, 2: True}
    with pytest.raises(ValueError, match="at most 3, num_pos_points"):
        load_settings(
            None,
            {
                "training.error_rounds": 4,
                "training.num_pos_points": 2,
                "training.num_neg_points": 2,
            },
        )
    with pytest.raises(ValueError, match=r"expected loss\.weight_prompt above 0"):
        load_settings(None, {"training.error_rounds": 1, "loss.weight_prompt": 0.0})
