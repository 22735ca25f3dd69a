"""What a study learned, on top of a network: what identifies it, when it is in use, its history."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adaptation_cases import DIGEST, HIERARCHY, network
from joining_cases import chain

from lib.configs.settings import InferenceSettings
from lib.networks.study_heads import BOUNDARY, StudyHeads, together
from lib.prediction.joining import PLAIN, JoinModel
from lib.prediction.learned import (
    MOST_HISTORY,
    Joining,
    Learned,
    Stored,
    heads_path,
    load_heads,
    save_heads,
)
from lib.prediction.predictor import Predictor

NET = network()
LEARNED = Learned("Learned.", True, DIGEST, "labels")


def heads(fill: float = 1.0, outputs: dict[str, int] | None = None, beside: int = 0) -> StudyHeads:
    made = StudyHeads(NET.feature_channels, outputs or {"semantic": 12}, 3, beside)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.linspace(-fill, fill, parameter.numel()).view_as(parameter))
            parameter.add_(0.1 * number)
    return made


def test_an_offset_is_added_to_every_contact() -> None:
    graph = chain([0.2, 0.5, 0.9])
    model = JoinModel(offset=0.5)
    plain = Joining(1.5, plain=True).on(model)
    assert plain.logits(graph) == pytest.approx(PLAIN.logits(graph) + 1.5)
    assert Joining(-2.0).on(model).offset == pytest.approx(-1.5)
    assert model.offset == 0.5, "the weights' own model stays"


def test_it_is_in_use_with_the_weights_it_was_learned_on() -> None:
    stored = Stored(LEARNED, heads())
    assert stored.sits_on(DIGEST) and not stored.sits_on("1" * 64)
    refused = Stored(replace(LEARNED, used=False), None)
    assert not refused.sits_on(DIGEST)


def test_what_identifies_it_is_all_that_an_answer_depends_on() -> None:
    base = Stored(LEARNED, heads(), grouping=heads())
    later = replace(base, learned=replace(LEARNED, time="later", sentence="x"), history=(LEARNED,))
    assert later.identity == base.identity, "when it was learned does not matter"
    others = [
        replace(base, heads=heads(2.0)),
        replace(base, heads=None),
        replace(base, grouping=heads(2.0)),
        replace(base, grouping=None),
        replace(base, joining=Joining()),
        replace(base, joining=Joining(1.0)),
        replace(base, joining=Joining(1.0, plain=True)),
    ]
    assert len({s.identity for s in (base, *others)}) == len(others) + 1
    assert base.fragments and not others[3].fragments
    assert replace(base, heads=None).fragments == base.fragments


def test_the_classes_in_use_identify_heads_as_their_weights_do() -> None:
    some = heads()
    some.used[3] = False
    assert Stored(LEARNED, some).identity != Stored(LEARNED, heads()).identity


def test_only_so_much_history_is_kept_the_newest(tmp_path: Path) -> None:
    entries = tuple(replace(LEARNED, sentence=str(n)) for n in range(MOST_HISTORY + 3))
    save_heads(tmp_path, Stored(LEARNED, None, entries))
    found = load_heads(tmp_path)
    assert found is not None and len(found.history) == MOST_HISTORY
    assert [found.history[0].sentence, found.history[-1].sentence] == ["3", str(MOST_HISTORY + 2)]
    assert found.heads is None and found.grouping is None and found.joining is None


def test_everything_comes_back_from_the_disk(tmp_path: Path) -> None:
    some = heads()
    some.used[2] = False
    both = heads(outputs={BOUNDARY: 1}, beside=18)
    figures = [{"name": "axon", "before": 0.1}]
    stored = Stored(
        replace(LEARNED, figures=figures, items=2, voxels=9, seconds=1.5), some, (LEARNED,),
        Joining(-1.0, plain=True), both,
    )  # fmt: skip
    save_heads(tmp_path, stored)
    found = load_heads(tmp_path)
    assert found is not None and found.identity == stored.identity
    assert (found.learned, found.history, found.joining) == (
        stored.learned, stored.history, stored.joining
    )  # fmt: skip
    assert found.heads is not None and found.grouping is not None
    assert found.grouping.outputs == {BOUNDARY: 1} and not found.heads.used[2]
    assert not any(p.requires_grad for p in found.grouping.parameters())


def test_a_file_of_another_version_is_told_with_the_remedy(tmp_path: Path) -> None:
    save_heads(tmp_path, Stored(LEARNED, None))
    path = heads_path(tmp_path)
    data = torch.load(path, weights_only=True)
    torch.save({**data, "format": 99}, path)
    path.with_name(path.name + ".sha256").unlink()
    with pytest.raises(ValueError, match=r"format 99, expected one of .*adapt --studies .*--reset"):
        load_heads(tmp_path)


def test_a_predictor_gets_copies_of_its_own() -> None:
    predictor = Predictor(NET, InferenceSettings(), HIERARCHY, joining=JoinModel(offset=1.0))
    own, grouping = heads(), heads(2.0)
    stored = Stored(LEARNED, own, joining=Joining(2.0), grouping=grouping)
    made = stored.on(predictor)
    assert made.joining.offset == 3.0 and predictor.joining.offset == 1.0
    for net, kept in ((made.net, own), (made.grouping, grouping)):
        assert net is not None
        study = net.task_heads.study
        assert isinstance(study, StudyHeads) and study is not kept
        assert torch.equal(study.outer.weight, kept.outer.weight)
    assert predictor.net.task_heads.study is None
    plain = Stored(LEARNED, None).on(predictor)
    assert plain.net.task_heads.study is None and plain.joining == predictor.joining


def test_heads_together_say_what_each_says() -> None:
    """Of their own mean and scale, one with filter responses beside the features, one without."""
    one, other = heads(), heads(2.0, {BOUNDARY: 1}, beside=4)
    one.mean, one.scale = torch.full_like(one.mean, 0.3), torch.full_like(one.scale, 2.0)
    other.mean, other.scale = torch.full_like(other.mean, -1.0), torch.full_like(other.scale, 0.5)
    one.used[5] = False
    draw = torch.Generator().manual_seed(0)
    features = torch.randn((7, NET.feature_channels), generator=draw)
    beside = torch.randn((7, 4), generator=draw)
    both = together(one, other)
    assert both.outputs == {"semantic": 12, BOUNDARY: 1} and both.beside == 4
    expected = torch.cat([one.change(features), other.change(features, beside)], 1)
    assert torch.allclose(both.change(features, beside), expected, atol=1e-4)
    assert both.used_of("semantic").tolist() == one.used.tolist()
    assert both.used_of(BOUNDARY).tolist() == [True] and len(both.used_of("coarse")) == 0
    assert math.isclose(float(one.mean[0]), 0.3, rel_tol=1e-6), "they stay as they were"
