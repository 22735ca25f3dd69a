"""From embeddings to objects, in one block and in many."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.object_scores import contingency, object_report
from lib.prediction.affinities import embedding_affinities
from lib.prediction.evidence import Evidence
from lib.prediction.grouping import group_volume
from lib.prediction.instances import predict_objects
from lib.prediction.joining import PLAIN as BY_AFFINITY
from lib.prediction.objects import Objects
from lib.prediction.scratch import Scratch
from lib.targets.pairs import pair_offsets

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


def grouped(evidence: Evidence, settings: InferenceSettings = PLAIN, voxel=VOXEL) -> Objects:
    found = group_volume(evidence, voxel, settings)
    return found.objects(BY_AFFINITY, HIERARCHY, settings.min_object_voxels)


def are(labels: np.ndarray, found: Objects) -> float:
    return object_report(contingency(labels, found.ids)).are


@pytest.mark.parametrize(
    ("shape", "voxel"), [((24, 24, 12), VOXEL), ((30, 30, 1), VOXEL), ((24, 24, 6), (4, 4, 40))]
)
def test_clean_embeddings_give_every_object(shape: tuple[int, int, int], voxel) -> None:
    labels = cubes(shape, 6)
    found = grouped(evidence_of(labels, voxel), voxel=voxel)
    assert found.count == labels.max() and are(labels, found) < 0.001
    assert found.ids.dtype == np.uint32
    assert found.largest_share == pytest.approx(1 / labels.max(), rel=0.01)
    assert found.sizes[1:].tolist() == np.bincount(found.ids.ravel())[1:].tolist()


def test_noise_and_corrupted_patches_are_survived() -> None:
    labels = cubes((36, 36, 12), 12)
    assert are(labels, grouped(evidence_of(labels, noise=0.12, corrupt=8))) < 0.05


@pytest.mark.parametrize("block", [(60, 60, 24), (90, 42, 24), (50, 50, 24)])
def test_the_cut_into_blocks_does_not_show(block: tuple[int, int, int]) -> None:
    labels = cubes((90, 60, 24), 9)
    evidence = evidence_of(labels, noise=0.12, corrupt=30)
    whole = grouped(evidence)
    cut = PLAIN.model_copy(update={"instance_block": block, "instance_overlap": 24})
    blocked = grouped(evidence, cut)
    assert object_report(contingency(whole.ids, blocked.ids)).are < 0.02
    np.testing.assert_array_equal(blocked.ids, grouped(evidence, cut).ids)


def test_contacts_are_counted_once_however_the_volume_is_cut() -> None:
    evidence = evidence_of(cubes((40, 30, 12), 7), noise=0.2)
    whole = group_volume(evidence, VOXEL, PLAIN)
    from lib.prediction.graph import merge_contacts
    from lib.prediction.grouping import count_contacts

    halves = [((0, 17), (0, 30), (0, 12)), ((17, 40), (0, 30), (0, 12))]
    parts = [count_contacts(evidence, whole.ids, box, VOXEL) for box in halves]
    again = merge_contacts(parts, whole.graph.votes)
    np.testing.assert_array_equal(again.edges, whole.graph.edges)
    np.testing.assert_allclose(again.stats, whole.graph.stats, atol=1e-9)


def test_a_long_object_through_many_blocks_is_one() -> None:
    labels = np.ones((120, 12, 12), int)
    labels[:, 6:] = 2
    cut = PLAIN.model_copy(update={"instance_block": (20, 20, 20), "instance_overlap": 6})
    found = grouped(evidence_of(labels), cut)
    assert found.count == 2 and are(labels, found) == 0.0


def test_a_thin_neurite_survives_and_a_crumb_does_not() -> None:
    labels = np.ones((40, 20, 12), int)
    labels[:, 8:12, 4:8] = 2  # 4 voxels wide
    labels[20, 2, 2] = 3
    settings = PLAIN.model_copy(update={"min_object_voxels": 50})
    found = grouped(evidence_of(labels), settings)
    assert found.count == 2
    assert are(np.where(labels == 2, 2, 1), found) < 0.05


def test_thousands_of_objects() -> None:
    labels = cubes((64, 64, 32), 4)
    assert labels.max() == 2048
    cut = PLAIN.model_copy(update={"instance_block": (48, 48, 32), "instance_overlap": 8})
    found = grouped(evidence_of(labels), cut)
    assert found.count > 1900 and are(labels, found) < 0.02  # 12 axes: some vectors are close


def test_background_separates_and_stays_empty() -> None:
    labels = np.zeros((20, 12, 6), int)
    labels[2:9], labels[11:18] = 1, 1  # one embedding, a gap between
    found = grouped(evidence_of(labels, long_range=()))
    assert found.count == 2
    np.testing.assert_array_equal(found.ids > 0, labels > 0)


def test_an_empty_foreground_gives_no_objects() -> None:
    found = grouped(evidence_of(np.zeros((8, 8, 4), int)))
    assert found.count == 0 and found.largest_share == 0.0 and not found.ids.any()


def test_a_mitochondrion_belongs_to_the_cell_around_it() -> None:
    labels = np.ones((30, 30, 10), int)
    labels[16:] = 2
    labels[4:10, 10:20, 3:7] = 3  # the network set it apart
    evidence = evidence_of(labels)
    names = HIERARCHY.class_names
    evidence.classes[:] = names.index("axon") + 1
    evidence.classes[labels == 3] = names.index("mitochondria") + 1
    found = grouped(evidence)
    assert found.count == 2 and are(np.where(labels == 3, 1, labels), found) == 0.0
    assert found.classes.tolist() == [0] + [names.index("axon") + 1] * 2


class Painted(nn.Module):
    """Stands for a trained network: embeds the grey value; dark is extracellular space."""

    spatial_dims = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(6.0))
        self.task_heads = nn.Module()  # no study's heads on it
        self.task_heads.register_module("study", None)

    def features(self, image: Tensor) -> Tensor:
        return image

    def heads(self, features: Tensor, prompts=None, only=None, beside=None) -> dict[str, Tensor]:
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
    again = predict_objects(Painted(), grey, VOXEL, on_disk, hierarchy=HIERARCHY)
    np.testing.assert_array_equal(again.ids, found.ids)


def test_scratch_keeps_small_arrays_in_memory_and_large_ones_on_disk(tmp_path) -> None:
    with Scratch(1000, tmp_path) as scratch:
        small, large = scratch.array((10,), np.uint8), scratch.array((30, 50), np.uint8)
        assert not isinstance(small, np.memmap) and isinstance(large, np.memmap)
        large[3] = 7
        assert large[3].sum() == 350 and not large[4].any()
    assert list(tmp_path.iterdir()) == []
