"""What nobody touched is no truth, and the objects as they stand, through the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nrrd
import numpy as np
import pytest

from tests.contract.conftest import SLICER, voxels, write_nifti
from tests.contract.proofreading_cases import ITEM, click, columns, inside, proofed, submit


@pytest.fixture
def item(server) -> Iterator[Path]:
    with proofed(server) as path:
        yield path


class TestTruthHasASource:
    """What nobody touched is shown and exported, and not learned."""

    def _run(self, client) -> tuple[np.ndarray, dict]:
        file, told = client.infer("segmentation", ITEM, dict(SLICER))
        return nrrd.read(file)[0], told["label_names"]

    def test_unchanged_answers_are_not_known(self, server, client, item, tmp_path):
        labels, names = self._run(client)
        told = submit(client, tmp_path, labels, item, list(names))
        assert told["machine_share"] == pytest.approx((labels > 0).mean(), abs=1e-5)
        assert told["touched_share"] == 0
        assert told["known_share"]["unknown"] == 1.0
        assert told["accepted"] == []
        final = voxels(server.studies / "labels" / "final" / f"{ITEM}.nii.gz")
        assert (final > 0).mean() == pytest.approx((labels > 0).mean()), "kept for display"
        changed = labels.copy()
        changed[:8, :8, :4] = 1 + labels[:8, :8, :4] % 2
        told = submit(client, tmp_path, changed, item, list(names))
        share = (changed != labels).mean()
        assert told["touched_share"] == pytest.approx(share, abs=1e-5)
        assert 1 - told["known_share"]["unknown"] == pytest.approx(share, abs=1e-5)
        again = submit(client, tmp_path, changed, item, list(names))
        assert again["touched_share"] == told["touched_share"]

    def test_all_is_said_to_be_true(self, server, client, item, tmp_path):
        labels, names = self._run(client)
        told = submit(client, tmp_path, labels, item, list(names), truth="all")
        assert told["machine_share"] == 0
        assert told["known_share"]["unknown"] == pytest.approx((labels == 0).mean(), abs=1e-5)

    def test_a_clicked_object_is_accepted_and_a_machine_s_is_not(
        self, server, client, item, tmp_path
    ):
        client.infer("instances", ITEM, {**SLICER, "result_dtype": "uint16"})
        found = server.studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz"
        write_nifti(found, columns(), item)
        mask, _ = click(client, inside(2), label="axon 2")
        told = submit(client, tmp_path, mask, item, ["axon 2"])
        assert told["accepted"] == ["axon 2"]
        assert told["touched_share"] == pytest.approx(mask.mean(), abs=1e-5)


class TestTheObjectsAsTheyStand:
    """`current` shows them, and takes steps back; `instances` run again keeps what people did."""

    def _current(self, client, **params):
        asked = {**SLICER, "result_dtype": "uint16", **params}
        file, told = client.infer("current", ITEM, asked)
        return nrrd.read(file)[0], told

    def test_shown_undone_and_redone(self, client, item):
        ids = columns()
        click(client, inside(1), inside(2), do="merge")
        click(client, inside(4), do="accept", label="axon 4")
        shown, told = self._current(client)
        np.testing.assert_array_equal(shown == 1, np.isin(ids, (1, 2)))
        assert told["done"]["accepted"] == 1
        assert told["label_names"]["axon 4"] == 4
        only, _ = self._current(client, only="accepted")
        assert set(np.unique(only)) == {0, 4}
        shown, told = self._current(client, do="undo")
        assert told["undo"] == "accept of axon 4"
        shown, told = self._current(client, do="undo")
        np.testing.assert_array_equal(shown, ids)
        shown, told = self._current(client, do="redo")
        assert told["redo"].startswith("merge")
        assert told["edits"] == 1

    def test_instances_run_again_keep_what_people_did(self, server, client, item):
        accepted, _ = click(client, inside(3), do="accept", label="axon 3")
        asked = {**SLICER, "result_dtype": "uint16"}
        file, told = client.infer("instances", ITEM, asked)
        shown = nrrd.read(file)[0]
        np.testing.assert_array_equal(shown == 3, accepted)
        assert told["edits"] == 1
        found = server.studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz"
        assert (voxels(found) != columns()).any(), "new objects of the machine"
        again, _ = self._current(client)
        np.testing.assert_array_equal(again, shown)
        mask, _ = click(client, inside(3))
        np.testing.assert_array_equal(mask, accepted)

    def test_accepted_objects_that_come_back_are_known(self, client, item, tmp_path):
        mask, _ = click(client, inside(4), do="accept")
        shown, told = self._current(client)
        names = sorted(told["label_names"], key=told["label_names"].get)
        told = submit(client, tmp_path, shown, item, names)
        assert told["touched_share"] == pytest.approx(mask.mean(), abs=1e-5)
        assert told["machine_share"] == pytest.approx(((shown > 0) & ~mask).mean(), abs=1e-5)

    def test_what_was_accepted_by_clicks_outlives_a_submission_without_it(
        self, server, client, item, tmp_path
    ):
        first, _ = click(client, inside(1), do="accept", label="axon 1")
        second, told = click(client, inside(2), do="accept", label="dendrite 2")
        assert told["labelled"]
        new = columns() == 4
        told = submit(client, tmp_path, new, item, ["axon 4"])
        label = server.studies / "labels" / "instance" / f"{ITEM}.nii.gz"
        np.testing.assert_array_equal(voxels(label) == 1, first)
        np.testing.assert_array_equal(voxels(label) == 2, second)
        np.testing.assert_array_equal(voxels(label) == 4, new)
        assert told["kept"] == {"axon 1": int(first.sum()), "dendrite 2": int(second.sum())}
        assert told["removed"] == {} and "dendrite 2" in " ".join(told["notes"])
        told = submit(client, tmp_path, np.ones((10, 10, 5)), item, ["axon 1"])
        wanted = first.copy()
        wanted[:10, :10, :5] = True
        np.testing.assert_array_equal(voxels(label) == 1, wanted)
        np.testing.assert_array_equal(voxels(label) == 2, second)
        shown, _ = self._current(client, only="accepted")
        np.testing.assert_array_equal(shown == 1, wanted)
        assert any("says nothing of what lies around it" in note for note in told["notes"])
