"""From embeddings to objects, in one block and in many."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lib.prediction.grouping import absorb_small, group_block
from torch import Tensor, nn

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.object_scores import contingency, object_report
from lib.prediction.affinities import embedding_affinities
from lib.prediction.instances import (
    Evidence,
    Objects,
    finish,
    group_volume,
    predict_instances,
    predict_objects,
)
from lib.prediction.scratch import Scratch
from lib.prediction.cutting import cut_blocks
from lib.targets.pairs import NEAREST, pair_offsets

HIERARCHY = load_hierarchy()
VOXEL = (10.0, 10.0, 10.0)
PLAIN = InferenceSettings(min_object_voxels=4, long_range=(3,), precision="float32")


def cubes(shape: tuple[int, int, int], edge: int) -> np.ndarray:
    """Cubes side by side, ids from 1."""
    grid = [np.arange(n) // edge for n in shape]
    counts = [int(g[-1]) + 1 for g in grid]
    ids = np.arange(np.prod(counts)).reshape(counts) + 1
    return ids[np.ix_(*grid)]


def evidence_of(
    labels: np.ndarray,
    voxel=VOXEL,
    noise: float = 0.0,
    corrupt: int = 0,
    seed: int = 0,
    long_range: tuple[int, ...] = (3,),
) -> Evidence:
    """Embeddings: one vector for each object, noise, patches drawn to other objects."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(int(labels.max()) + 1, 12))
    vectors *= 2.5 / np.linalg.norm(vectors, axis=1, keepdims=True)
    embedding = vectors[labels]
    for _ in range(corrupt):
        at = tuple(slice(c, c + 3) for c in rng.integers(0, np.array(labels.shape) - 2))
        embedding[at] = 0.6 * embedding[at] + 0.4 * vectors[rng.integers(len(vectors))]
    embedding += rng.normal(0, noise, embedding.shape)
    batch = torch.from_numpy(np.moveaxis(embedding, -1, 0)[None]).float()
    offsets = pair_offsets(voxel, long_range, labels.shape)
    affinities = embedding_affinities(batch, offsets, 1.5)[0].half().numpy()
    return Evidence(affinities, offsets, np.full(labels.shape, 3, np.uint8), labels > 0)


def are(labels: np.ndarray, found: Objects) -> float:
    return object_report(contingency(labels, found.ids)).are


@pytest.mark.parametrize("shape", [(24, 24, 12), (30, 30, 1)])
def test_clean_embeddings_give_every_object(shape: tuple[int, int, int]) -> None:
    labels = cubes(shape, 6)
    found = group_volume(evidence_of(labels), VOXEL, PLAIN)
    assert found.count == labels.max() and are(labels, found) == 0.0
    assert found.ids.dtype == np.uint32
    assert found.largest_share == pytest.approx(1 / labels.max())


def test_agglomeration_gives_clean_objects_too() -> None:
    labels = cubes((24, 24, 12), 6)
    settings = PLAIN.model_copy(update={"instance_method": "agglomeration"})
    found = group_volume(evidence_of(labels), VOXEL, settings)
    assert found.count == labels.max() and are(labels, found) == 0.0


def test_noise_and_corrupted_patches_are_survived() -> None:
    labels = cubes((36, 36, 12), 12)
    found = group_volume(evidence_of(labels, noise=0.12, corrupt=8), VOXEL, PLAIN)
    assert are(labels, found) < 0.05


def test_blocks_give_what_one_block_gives() -> None:
    labels = cubes((50, 40, 14), 9)
    evidence = evidence_of(labels, noise=0.1)
    whole = group_volume(evidence, VOXEL, PLAIN)
    cut = PLAIN.model_copy(update={"instance_block": (24, 24, 10), "instance_overlap": 6})
    blocked = group_volume(evidence, VOXEL, cut)
    assert object_report(contingency(whole.ids, blocked.ids)).are < 0.01
    assert are(labels, blocked) < 0.01
    again = group_volume(evidence, VOXEL, cut)
    np.testing.assert_array_equal(blocked.ids, again.ids)


def test_a_long_object_through_many_blocks_is_one() -> None:
    labels = np.ones((120, 12, 12), int)
    labels[:, 6:] = 2
    cut = PLAIN.model_copy(update={"instance_block": (20, 20, 20), "instance_overlap": 6})
    found = group_volume(evidence_of(labels), VOXEL, cut)
    assert found.count == 2 and are(labels, found) == 0.0


def test_thousands_of_objects() -> None:
    labels = cubes((64, 64, 32), 4)
    assert labels.max() == 2048
    cut = PLAIN.model_copy(update={"instance_block": (32, 32, 32), "instance_overlap": 8})
    found = group_volume(evidence_of(labels), VOXEL, cut)
    assert found.count > 1900 and are(labels, found) < 0.02  # 12 axes: some vectors are close


def test_background_separates_and_stays_empty() -> None:
    labels = np.zeros((20, 12, 6), int)
    labels[2:9], labels[11:18] = 1, 1  # one embedding, a gap between
    found = group_volume(evidence_of(labels, long_range=()), VOXEL, PLAIN)
    assert found.count == 2
    np.testing.assert_array_equal(found.ids > 0, labels > 0)


def test_an_empty_foreground_gives_no_objects() -> None:
    found = group_volume(evidence_of(np.zeros((8, 8, 4), int)), VOXEL, PLAIN)
    assert found.count == 0 and found.largest_share == 0.0 and not found.ids.any()


def test_tiny_objects_go_and_the_rest_is_numbered_without_gaps() -> None:
    ids = np.zeros((10, 4, 2), np.uint32)
    ids[0:2], ids[4, 0, 0], ids[6:9] = 9, 5, 7
    classes = np.full(ids.shape, 4, np.uint8)
    classes[6:9, :3] = 6
    found = finish(ids, classes, cut_blocks(ids.shape, (5, 4, 2), (1, 1, 0)), 3)
    assert found.count == 2 and np.unique(found.ids).tolist() == [0, 1, 2]
    assert found.sizes.tolist() == [80 - 16 - 24, 16, 24]
    assert found.classes.tolist() == [0, 4, 6]
    assert found.ids[0, 0, 0] == 1 and found.ids[4, 0, 0] == 0 and found.ids[8, 0, 0] == 2


def test_small_pieces_join_the_neighbour_they_are_closest_to() -> None:
    labels = np.array([1, 1, 1, 2, 3, 3, 3], np.uint32).reshape(7, 1, 1)
    nearest = np.zeros((1, 7, 1, 1), np.float32)
    nearest[0, 2], nearest[0, 3] = -0.5, -0.1  # (1|2) is worse than (2|3)
    found = absorb_small(labels, nearest, NEAREST[:1], 2)
    assert found.ravel().tolist() == [1, 1, 1, 2, 2, 2, 2]


@given(seed=st.integers(0, 1000))
def test_absorbing_only_joins_and_leaves_no_small_piece_beside_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 9, (6, 5, 4)).astype(np.uint32)
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)
    nearest = rng.uniform(-1, 1, (3, 6, 5, 4)).astype(np.float32)
    found = absorb_small(labels, nearest, NEAREST, 12)
    assert ((found == 0) == (labels == 0)).all()
    for i in np.unique(labels[labels > 0]):
        assert len(np.unique(found[labels == i])) == 1
    sizes = np.bincount(found.ravel())
    for i in np.flatnonzero((sizes < 12) & (np.arange(len(sizes)) > 0)):
        grown = found == i
        for axis in range(3):
            for step in (1, -1):
                moved = np.roll(found, step, axis)
                edge = [slice(None)] * 3
                edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                moved[tuple(edge)] = 0
                assert not (grown & (moved > 0) & (moved != i)).any()


def test_a_block_is_grouped_alike_every_time() -> None:
    evidence = evidence_of(cubes((16, 16, 8), 5), noise=0.4)
    runs = [
        group_block(evidence.affinities, evidence.offsets, evidence.foreground, PLAIN)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*runs)


class Painted(nn.Module):
    """Stands for a trained network: embeds the grey value; dark is extracellular space."""

    spatial_dims = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(6.0))

    def features(self, image: Tensor) -> Tensor:
        return image

    def heads(self, features: Tensor, prompts=None, only=None) -> dict[str, Tensor]:
        angle = features * self.scale
        semantic = torch.full((features.shape[0], 12, *features.shape[2:]), -9.0)
        axon = HIERARCHY.class_names.index("axon")
        semantic[:, 0] = torch.where(features[:, 0] < 0.1, 5.0, -5.0)
        semantic[:, axon] = 0.0
        return {
            "semantic": semantic,
            "instance": torch.cat([3 * angle.cos(), 3 * angle.sin()], 1),
        }


@pytest.mark.parametrize("mirror", [False, True])
def test_a_volume_goes_through_windows_and_blocks(mirror: bool) -> None:
    grey = np.full((40, 30, 12), 10, np.uint8)
    truth = np.zeros(grey.shape, int)
    for i, level in enumerate((60, 120, 180, 250), start=1):
        where = (slice(10 * i - 10, 10 * i - (i % 2)), slice(2, 28))
        grey[where], truth[where] = level, i
    settings = PLAIN.model_copy(
        update={
            "window": (16, 16, 8),
            "instance_block": (24, 24, 12),
            "instance_overlap": 6,
            "mirror": mirror,
        }
    )
    steps: list[int] = []
    found = predict_objects(
        Painted(),
        grey,
        VOXEL,
        settings,
        hierarchy=HIERARCHY,
        progress=lambda done, total: steps.append(total - done),
    )
    assert found.count == 4 and are(np.where(truth > 0, truth, 0), found) == 0.0
    np.testing.assert_array_equal(found.ids > 0, truth > 0)
    axon = HIERARCHY.class_names.index("axon") + 1
    assert found.classes.tolist() == [0, axon, axon, axon, axon]
    assert steps[-1] == 0
    on_disk = settings.model_copy(update={"tile_bytes": 1})
    ids = predict_instances(Painted(), grey, VOXEL, on_disk, hierarchy=HIERARCHY)
    np.testing.assert_array_equal(ids, found.ids)


def test_scratch_keeps_small_arrays_in_memory_and_large_ones_on_disk(tmp_path) -> None:
    with Scratch(1000, tmp_path) as scratch:
        small, large = scratch.array((10,), np.uint8), scratch.array((30, 50), np.uint8)
        assert not isinstance(small, np.memmap) and isinstance(large, np.memmap)
        large[3] = 7
        assert large[3].sum() == 350 and not large[4].any()
    assert list(tmp_path.iterdir()) == []
