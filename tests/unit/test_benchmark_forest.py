"""The baseline without a network: it finds plain cells, in three dimensions and in sections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from benchmarks.forest import JOINING, Sample, boundary_of, errors, group, measure, responses


def membranes(seed: int, thick: bool) -> Sample:
    """Cells whose borders are dark, with a little noise."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*map(np.arange, (40, 36, 12)), indexing="ij"), -1)
    ids = cKDTree(rng.random((9, 3)) * (40, 36, 12)).query(place)[1].astype(np.int64) + 1
    bare = Sample(np.zeros(ids.shape, np.float32), ids, thick)
    dark = ndimage.gaussian_filter(boundary_of(bare).astype(np.float32), 0.6)
    image = 1 - dark + 0.1 * rng.standard_normal(ids.shape, dtype=np.float32)
    return Sample(image.astype(np.float32), ids, thick)


@pytest.mark.parametrize("thick", [False, True])
def test_plain_cells_are_found(thick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.forest.ROUNDS", 10)
    figures = measure([membranes(0, thick)], [membranes(1, thick)])
    assert figures.boundary_auc > 0.9
    assert figures.section_are < 0.25
    assert np.isnan(figures.are) == thick and figures.joining in JOINING


def test_joining_more_makes_fewer_objects_and_no_boundary_one() -> None:
    sample = membranes(2, False)
    edges = boundary_of(sample).astype(np.float32)
    found = group(edges, False, 60.0)
    counts = [len(np.unique(found[t])) for t in JOINING]
    assert counts == sorted(counts, reverse=True)
    assert errors(found[JOINING[0]], sample)[0] < 0.5
    assert errors(sample.ids, sample)[0] == pytest.approx(0)


def test_features_have_a_scale_each() -> None:
    image = np.random.default_rng(0).random((12, 12, 12), dtype=np.float32)
    assert responses(image).shape == (12, 12, 12, 1 + 3 * 8)
    assert responses(image[..., 0]).shape == (12, 12, 1 + 3 * 6)
