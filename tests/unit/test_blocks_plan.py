"""The plan of a blockwise run: how it cuts, what it refuses to go on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.blocks.plan import BlockPlan, cut, plan_path, read_plan
from lib.configs.settings import Settings
from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError
from lib.volumes.frames import ViewerFrame

PLAN = BlockPlan(
    source="/data/em.zarr", source_shape=(90, 80, 70), origin=(3, 2, 1),
    voxel_size_nm=(8.0, 8.0, 40.0), box=((10, 70), (0, 50), (5, 25)), core=(32, 32, 16),
    chunk=(16, 16, 8), contrast=(10.0, 200.0), task="both", level="fine", weights="/w/neuropil.pt",
    weights_sha256="ab" * 32, inference={"window": [24, 24, 8], "overlap": 0.5}, tile_bytes=1 << 20,
    scale=(0.5, 0.1),
)  # fmt: skip
SIZES = st.tuples(*[st.integers(1, 400)] * 3)


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    PLAN.write(tmp_path)
    assert read_plan(tmp_path) == PLAN
    assert not PLAN.differences(PLAN)


def test_what_differs_is_said_and_what_may_differ_is_not(tmp_path: Path) -> None:
    moved = replace(PLAN, weights="/elsewhere/n.pt", tile_bytes=5, device="cuda")
    assert not PLAN.differences(moved), "files may move, and memory may be short"
    other = replace(PLAN, box=((0, 1), (0, 1), (0, 1)), weights_sha256="cd" * 32)
    told = "; ".join(PLAN.differences(other))
    assert "box ((10, 70), (0, 50), (5, 25)), now ((0, 1), (0, 1), (0, 1))" in told
    assert "weights_sha256" in told and "weights '/w" not in told
    settings = replace(PLAN, inference={"window": [24, 24, 8], "overlap": 0.25, "new": 1})
    assert PLAN.differences(settings) == [
        "inference.new None, now 1", "inference.overlap 0.5, now 0.25"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"format": 0}, {"format": None}, {"core": None}, {"more": 1}, {"box": "x"}]
)
def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    PLAN.write(tmp_path)
    path = plan_path(tmp_path)
    data = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    with pytest.raises(VolumeError, match=r"plan\.json: not a readable plan.*another --out"):
        read_plan(tmp_path)


@given(
    shape=SIZES,
    core=SIZES,
    chunk=st.tuples(*[st.integers(1, 64)] * 3),
    order=st.permutations((0, 1, 2)),
    scale=st.sampled_from((((1, 1, 1), (1, 1, 1)), ((3, 2, 1), (1, 1, 1)), ((1, 1, 1), (3, 3, 1)))),
)
def test_cores_are_whole_chunks_and_chunks_whole_voxels_of_the_network(
    shape: Triple, core: Triple, chunk: Triple, order: list[int], scale: tuple[Triple, Triple]
) -> None:
    bins, splits = scale
    frame = ViewerFrame(
        shape, (8.0, 8.0, 8.0), (order[0], order[1], order[2]),
        tuple(min(b, shape[a]) for a, b in zip(order, bins, strict=True)), splits,
    )  # type: ignore[arg-type]  # fmt: skip
    settings = Settings.model_validate({"blocks": {"core": list(core), "chunk": list(chunk)}})
    cores, chunks = cut(frame, shape, settings)
    for axis, n in zip(frame.order, frame.bins, strict=True):
        assert cores[axis] % chunks[axis] == 0 and chunks[axis] % n == 0
        count = -(-shape[axis] // cores[axis])
        assert (count - 1) * cores[axis] < shape[axis], "no block is empty"
    most = max(1, *core) * max(bins) + max(chunks)
    assert all(c <= max(most, n) for c, n in zip(cores, chunks, strict=True))


def test_memory_and_disk_are_estimated_from_what_is_written() -> None:
    classes = replace(PLAN, task="segmentation", scale=None)
    assert classes.written == ("classes",) and PLAN.written == ("classes", "objects", "fragments")
    assert PLAN.worker_bytes() > classes.worker_bytes() > 900 * 2**20
    assert PLAN.least_disk_bytes() == 3 * classes.least_disk_bytes() == int(60 * 50 * 20 * 0.006)
