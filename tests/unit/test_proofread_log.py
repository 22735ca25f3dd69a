"""Edits are kept, and what they add up to is what a plain model says, whatever their order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from proofread_cases import SHAPE, Model, brush, current, machine_map, whole

from lib.proofread.current import Placed
from lib.proofread.log import EditLog
from lib.proofread.machine import MachineObjects
from lib.proofread.rebase import rebase
from lib.volumes.errors import VolumeError

ROOT = Path(__file__).parents[2]


def _random_step(rng, objects, model):
    """One edit, undo or redo, of both; refused where it makes no sense."""
    ids = np.unique(model.now[0])
    ids = ids[ids > 0]
    pick = int(rng.choice(ids)) if len(ids) else 1
    op = rng.choice(["accept", "redraw", "split", "merge", "delete", "name", "undo", "redo"])
    if op in ("undo", "redo"):
        getattr(objects, op)()
        getattr(model, op)()
    elif op in ("accept", "redraw"):
        placed = brush(rng)
        target = int(rng.choice([pick, objects.new_id(), 40]))
        edit = getattr(objects, op)(placed, target, f"axon {target}" if rng.random() < 0.5 else "")
        ids, accepted, names = model.edit()
        name = edit.name or names.get(target, "")
        rest = ids == target
        inside = np.zeros(SHAPE, bool)
        inside[tuple(slice(a, b) for a, b in placed.box)] = placed.mask
        ids[rest] = edit.rest
        assert (edit.rest > 0) == ((rest & ~inside).sum() >= objects.min_voxels)
        ids[inside] = target
        accepted.discard(target)
        if op == "accept":
            accepted.add(target)
        names.pop(target, None)
        if name:
            names[target] = name
    elif op == "split":
        placed = brush(rng)
        inside = np.zeros(SHAPE, bool)
        inside[tuple(slice(a, b) for a, b in placed.box)] = placed.mask
        part = inside & (model.now[0] == pick)
        if not part.any() or (part == (model.now[0] == pick)).all():
            with pytest.raises(ValueError, match="split"):
                objects.split(placed, pick)
            return
        edit = objects.split(placed, pick)
        ids, accepted, _ = model.edit()
        ids[part] = edit.object
        accepted.discard(pick)
    elif op == "merge" and len(ids) > 2:
        chosen = [int(i) for i in rng.choice(ids, 3, replace=False)]
        objects.merge(chosen)
        ids, accepted, names = model.edit()
        ids[np.isin(ids, chosen)] = chosen[0]
        accepted.difference_update(chosen)
        for other in chosen[1:]:
            names.pop(other, None)
    elif op == "delete" and len(ids):
        objects.delete(pick)
        ids, accepted, names = model.edit()
        ids[ids == pick] = 0
        accepted.discard(pick)
        names.pop(pick, None)
    elif op == "name" and len(ids):
        objects.name(pick, "dendrite 3")
        model.edit()[2][pick] = "dendrite 3"


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_edits_equals_the_model_and_a_replay_from_scratch(tmp_path, seed):
    rng = np.random.default_rng(seed)
    ids = machine_map(seed)
    objects, model = current(tmp_path, ids), Model(ids)
    for _ in range(40):
        _random_step(rng, objects, model)
        np.testing.assert_array_equal(whole(objects), model.now[0])
    again = current(tmp_path, ids)
    np.testing.assert_array_equal(whole(again), model.now[0])
    for found in (objects, again):
        assert found.standing().accepted == model.now[1]
        alive = set(np.unique(model.now[0]))
        assert {i: n for i, n in found.standing().names.items() if i in alive} == {
            i: n for i, n in model.now[2].items() if i in alive
        }
    box = ((2, 9), (1, 8), (1, 5))
    np.testing.assert_array_equal(again.read(box), model.now[0][2:9, 1:8, 1:5])
    for object_id in again.ids()[:5]:
        placed = again.voxels(object_id)
        mask = np.zeros(SHAPE, bool)
        mask[tuple(slice(a, b) for a, b in placed.box)] = placed.mask
        np.testing.assert_array_equal(mask, model.now[0] == object_id)


def test_two_writers_see_each_other(tmp_path):
    ids = machine_map()
    one, two = current(tmp_path, ids), current(tmp_path, ids)
    one.merge([1, 2], by="ann")
    two.merge([1, 3], by="bob")
    np.testing.assert_array_equal(whole(one), whole(two))
    assert set(np.unique(whole(one))).isdisjoint({2, 3})
    undone = one.undo(by="ann")
    assert undone is not None
    assert (undone.by, undone.others) == ("bob", (3,))
    assert one.undo() is not None
    assert one.undo() is None
    np.testing.assert_array_equal(whole(two), ids)


def test_half_a_line_was_never_acknowledged(tmp_path):
    ids = machine_map()
    objects = current(tmp_path, ids)
    objects.merge([1, 2])
    path = objects.log.path
    with path.open("ab") as file:
        file.write(b'{"op": "delete", "obj')
    again = current(tmp_path, ids)
    np.testing.assert_array_equal(whole(again), whole(objects))
    again.delete(5)
    assert [e.op for e in EditLog(tmp_path, "a").edits()] == ["merge", "delete"]


def test_a_damaged_line_is_named(tmp_path):
    objects = current(tmp_path, machine_map())
    objects.merge([1, 2])
    objects.delete(3)
    lines = objects.log.path.read_bytes().splitlines(keepends=True)
    objects.log.path.write_bytes(lines[0] + b"not json\n" + lines[1])
    with pytest.raises(VolumeError, match=r"edits.jsonl: line 2 .*put the file aside"):
        EditLog(tmp_path, "a").edits()


def test_a_damaged_payload_is_named(tmp_path):
    ids = machine_map()
    objects = current(tmp_path, ids)
    edit = objects.accept(Placed(np.ones((3, 3, 3), bool), ((0, 3), (0, 3), (0, 3))), 40)
    path = objects.log.payloads.folder / f"{edit.mask}.z"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(VolumeError, match="voxels cannot be read"):
        whole(current(tmp_path, ids))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from proofread_cases import brush, current, machine_map
objects = current(Path(sys.argv[1]), machine_map())
rng = np.random.default_rng(0)
each = int(sys.argv[2])
for n in range(10000):
    with objects.together():
        for k in range(each):
            objects.accept(brush(rng), 100 + each * n + k)
    print(n, flush=True)
"""


@pytest.mark.parametrize("each", [1, 7])
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path, each):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), str(each)], cwd=ROOT,
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests/unit"},
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = each * (5 + len(process.stdout.read().splitlines()))
    process.wait()
    objects = current(tmp_path, machine_map())
    active = objects.standing().active
    assert told <= len(active) <= told + each
    assert [e.object for e in active] == list(range(100, 100 + len(active)))
    whole(objects)  # every mask is there


def test_edits_made_together_stand_at_once_and_are_flushed_once(tmp_path, monkeypatch):
    flushed: list[int] = []
    real = os.fsync
    ids = machine_map()
    one, two = current(tmp_path / "one", ids), current(tmp_path / "two", ids)
    rng = np.random.default_rng(0)
    brushes = [brush(rng) for _ in range(8)]
    with one.together():
        for n, placed in enumerate(brushes):
            one.accept(placed, 100 + n)
            two.accept(placed, 100 + n)
            np.testing.assert_array_equal(whole(one), whole(two))
        assert not one.log.path.exists()
        monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(handle), real(handle)))
    np.testing.assert_array_equal(whole(one), whole(two))
    np.testing.assert_array_equal(whole(current(tmp_path / "one", ids)), whole(two))
    masks = len({d.mask for d in one.standing().drawn})
    assert len(flushed) <= masks + 5, "each mask once, the log once, and folders"


def test_an_exception_enters_none_of_the_edits_made_together(tmp_path):
    ids = machine_map()
    objects = current(tmp_path, ids)
    objects.merge([1, 2])
    before = whole(objects)
    with pytest.raises(ValueError, match="none of this number"), objects.together():
        objects.accept(brush(np.random.default_rng(0)), 100)
        objects.delete(999)
    np.testing.assert_array_equal(whole(objects), before)
    np.testing.assert_array_equal(whole(current(tmp_path, ids)), before)
    objects.delete(3)
    assert [e.op for e in EditLog(tmp_path, "a").edits()] == ["merge", "delete"]


def test_another_thread_waits_for_edits_made_together(tmp_path):
    objects = current(tmp_path, machine_map())
    other = threading.Thread(target=objects.merge, args=([1, 2],))
    with objects.together():
        objects.accept(brush(np.random.default_rng(0)), 100)
        other.start()
        whole(objects)  # reading waits for nobody
        objects.accept(brush(np.random.default_rng(1)), 101)
    other.join()
    assert [e.op for e in EditLog(tmp_path, "a").edits()] == ["accept", "accept", "merge"]


def test_locked_are_accepted_objects_alone(tmp_path):
    ids = machine_map()
    objects = current(tmp_path, ids)
    objects.merge([3, 4])
    placed = objects.voxels(7)
    assert placed is not None
    objects.accept(placed, 7, "axon 7")
    box = ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2]))
    np.testing.assert_array_equal(objects.locked(box), ids == 7)
    assert not objects.locked(box, but=[7]).any()
    assert objects.named("axon 7") == 7
    assert objects.standing().touched == {3, 7}


def test_without_a_map_of_the_machine(tmp_path):
    objects = current(tmp_path)
    assert not whole(objects).any()
    objects.accept(Placed(np.ones((2, 2, 2), bool), ((1, 3), (1, 3), (1, 3))), 5, "axon 5")
    assert objects.ids() == [5]
    assert objects.at([[1, 1, 1], [0, 0, 0], [99, 0, 0]]) == [5, 0, 0]
    # a map that comes later does not take the numbers of what people made
    ids = machine_map()
    later = current(tmp_path, ids)
    now = whole(later)
    drawn = np.zeros(SHAPE, bool)
    drawn[1:3, 1:3, 1:3] = True
    np.testing.assert_array_equal(now == 5, drawn)
    np.testing.assert_array_equal((now > 0)[~drawn], (ids > 0)[~drawn])
    later.delete(int(now[5, 5, 3]) or int(now.max()))
    reopened = whole(current(tmp_path, ids))
    np.testing.assert_array_equal(reopened, whole(later))


class TestNewObjectsOfTheMachine:
    """`instances` has run again."""

    def test_edits_take_hold_of_new_objects_by_overlap(self, tmp_path):
        ids = machine_map()
        objects = current(tmp_path, ids)
        objects.merge([1, 2])
        objects.delete(3)
        objects.name(4, "axon 4")
        placed = objects.voxels(7)
        objects.accept(placed, 7, "dendrite 7")
        renamed = np.array([0, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1], np.uint32)
        new = np.asfortranarray(renamed[ids])
        assert rebase(objects, MachineObjects(new, "two")) == []
        again = current(tmp_path, new, "two")
        before, after = whole(objects), whole(again)
        for object_id in (1, 4, 7):
            np.testing.assert_array_equal(after == object_id, before == object_id)
        np.testing.assert_array_equal(after == 0, before == 0)
        assert again.standing().names == {4: "axon 4", 7: "dendrite 7"}
        pairs = set(zip(before.ravel().tolist(), after.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(before)), "the others keep their voxels"
        np.testing.assert_array_equal(after, before, "and the numbers that people saw")
        assert again.undo() is not None
        assert again.undo() is not None
        assert 4 not in again.standing().names
        # the old map, if it is put back, is still understood
        np.testing.assert_array_equal(whole(current(tmp_path, ids)) == 1, np.isin(ids, (1, 2)))

    def test_what_no_longer_fits_is_told(self, tmp_path):
        ids = machine_map()
        objects = current(tmp_path, ids)
        objects.merge([1, 2])
        objects.delete(9)
        new = np.where(np.isin(ids, (2, 9)), 0, ids).astype(np.uint32)
        told = rebase(objects, MachineObjects(np.asfortranarray(new), "two"))
        assert len(told) == 2
        assert "merge of object 1" in told[0]
        assert "where 2 was" in told[0]
        assert "delete of object 9" in told[1]

    def test_objects_that_are_split_anew_stay_apart(self, tmp_path):
        ids = machine_map()
        objects = current(tmp_path, ids)
        objects.accept(objects.voxels(5), 5)
        halves = ids.copy()
        halves[(ids == 6) & (np.arange(SHAPE[0]) % 2 == 0)[:, None, None]] = 13
        rebase(objects, MachineObjects(halves, "two"))
        after = whole(current(tmp_path, halves, "two"))
        assert len(np.unique(after[ids == 6])) == 2
        larger = np.bincount(halves[ids == 6]).argmax()
        assert set(after[halves == larger]) == {6}, "most of what 6 was"
        assert after[(ids == 6) & (halves != larger)].min() > ids.max()
        np.testing.assert_array_equal(after[ids != 6], ids[ids != 6])
        np.testing.assert_array_equal(after == 5, ids == 5)
