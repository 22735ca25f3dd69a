"""The combined mode learns a patch by heart: classes and objects, with prompts and without."""

from __future__ import annotations

import pytest

from benchmarks.overfit import one_patch, overfit, overfit_settings
from lib.configs.load import hierarchy_of


@pytest.mark.timeout(900)
def test_one_patch_is_learned_by_heart_in_both_modes() -> None:
    settings = overfit_settings()
    batch = one_patch((32, 32, 12), hierarchy_of(settings), seed=0)
    assert len(batch["class_sets"].unique()) > 8
    assert int(batch["instance"].max()) > 8
    assert overfit(settings, batch, steps=450, every=50)  # ARE < 0.04 and mean IoU > 0.98
