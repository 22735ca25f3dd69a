"""Heat maps lie on the image's grid, cell by cell, in percent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from queries_cases import add_item, make_scores, store_in

from lib.queries.heatmap import heat_tag, write_heat_map
from lib.queries.scores import HEAT_MAPS


def test_each_cell_is_painted_and_the_grid_is_the_images(tmp_path: Path) -> None:
    item = add_item(store_in(tmp_path).study, "one")
    scores = make_scores(item, np.zeros(8, np.float32))
    rng = np.random.default_rng(0)
    heat = rng.integers(0, 101, scores.heat.shape).astype(np.uint8)
    scores = replace(scores, heat=heat)
    for i, name in enumerate(HEAT_MAPS):
        path = write_heat_map(item, scores, name)
        assert path == item.label_path(heat_tag(name))
        image = nib.load(path)
        found = np.asarray(image.dataobj)
        assert found.shape == item.shape and found.dtype == np.uint8
        np.testing.assert_allclose(image.header.get_zooms(), item.voxel_size_nm)
        for place in rng.integers(0, item.shape, (40, 3)):
            cell = [
                int(np.searchsorted(edge, v, "right")) - 1
                for edge, v in zip(scores.heat_grid.edges, place, strict=True)
            ]
            assert found[tuple(place)] == heat[(i, *cell)]


def test_other_names_and_scores_of_another_image_are_refused(tmp_path: Path) -> None:
    item = add_item(store_in(tmp_path).study, "one")
    scores = make_scores(item, np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="heat map 'speed': expected one of"):
        write_heat_map(item, scores, "speed")
    x, y, z = scores.heat_grid.edges
    other = replace(scores, heat_grid=replace(scores.heat_grid, edges=(x[:-1], y, z)))
    with pytest.raises(ValueError, match="run the scoring method"):
        write_heat_map(item, other)
    assert not (item.study.root / "labels" / "heat-uncertainty").exists()
