"""An annotator's work in a volume of 100 gigavoxels, most of which is stored nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from benchmarks.huge_volume import BIG, PLACE, SHAPE, Annotator, in_the_volume, make_studies, work
from lib.volumes.boxes import Triple
from tests.conftest import TINY, Server, make_app, start_server

pytestmark = pytest.mark.contract

STORED: Triple = (128, 128, 64)
MOST_MIB = 2048


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("huge")
    make_studies(folder, STORED)
    make_app(folder / "app", TINY.replace("20000000", "200000000"))
    server = start_server(folder / "app", folder / BIG)
    yield server
    server.stop()


def test_a_sample_clicks_objects_and_a_submission_cost_what_a_small_item_does(
    huge: Server, tmp_path: Path
) -> None:
    assert np.prod(SHAPE, dtype=np.int64) == 100_000_000_000
    me: Annotator = work(huge, tmp_path, repeats=2)
    in_the_volume(me, repeats=1)
    assert me.peak_mib() < MOST_MIB
    assert me.item != BIG, "an item of its own around the region"
    box = json.loads((huge.studies / f"{me.item}.region.json").read_text())["box"]
    for (low, high), start, size in zip(box, PLACE, STORED, strict=True):
        assert low < start + size and high > start, "where voxels are stored"
    stored = ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{huge.studies.parent}/em.zarr/"}}
    ).result()
    assert stored.shape == SHAPE[::-1], "the volume itself is as it was"
    written = sum(p.stat().st_size for p in huge.studies.rglob("*") if p.is_file())
    assert written < 50 * 2**20, "nothing of the volume's size is on the disk"
