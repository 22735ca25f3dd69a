"""A study that is one large volume: regions of it are handed out as items."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from block_cases import PLACE, sparse
from queries_cases import store_in

from lib.commands import main
from lib.queries import volumes
from lib.queries.select import NoRegion, next_region
from lib.queries.store import ScoreStore
from lib.volumes import regions


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    sparse(tmp_path / "big.zarr")
    words = ["import", str(tmp_path / "big.zarr"), "--studies", str(tmp_path / "study"), "--lazy"]
    assert main(words) == 0
    return store_in(tmp_path / "study", region=(64, 64, 16), view=(128, 128, 32))


def label(store: ScoreStore, item_id: str, box: tuple[tuple[int, int], ...]) -> None:
    item = store.study.item(item_id)
    final = np.zeros(item.shape, np.uint8)
    final[tuple(slice(a, b) for a, b in box)] = 3
    path = item.label_path("final")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(final, np.eye(4)), path)


def test_a_region_where_voxels_are_stored_becomes_an_item(store: ScoreStore) -> None:
    query = next_region(store, "random", rng=np.random.default_rng(0), now=1.0)
    item = store.study.item(query.item)
    assert item.id.startswith("big-x") and item.shape == (128, 128, 32)
    assert all(0 <= a < b <= n for (a, b), n in zip(query.box, item.shape, strict=True))
    for (a, b), origin, there in zip(query.box, item.record.origin_voxels, PLACE, strict=True):
        assert a + origin < there.stop + 64 and b + origin > there.start - 64
    assert len(store.study.items()) == 2


def test_nobody_is_sent_twice_and_what_is_annotated_is_done(store: ScoreStore) -> None:
    seen = set()
    for step in range(200):
        try:
            query = next_region(store, "random", client=str(step), now=1.0 + step)
        except NoRegion as error:
            assert error.status == "reserved"
            break
        origin = store.study.item(query.item).record.origin_voxels
        where = tuple(a + o for (a, _), o in zip(query.box, origin, strict=True))
        assert where not in seen
        seen.add(where)
    assert 8 <= len(seen) <= 64, seen
    with pytest.raises(NoRegion) as ended:
        for step in range(200):
            query = next_region(store, "random", client="x", now=1e6 + step)
            label(store, query.item, ((0, 128), (0, 128), (0, 32)))
    assert ended.value.status == "finished"


def test_a_volume_is_not_scored_whole(store: ScoreStore) -> None:
    def never() -> None:
        raise AssertionError("a volume of 16 gigavoxels has no business in the network")

    assert store.score(never, "w") == 0  # type: ignore[arg-type]
    assert volumes.is_volume(store.study.item("big"))
    assert regions.MOST_SHOWN < 1e9
