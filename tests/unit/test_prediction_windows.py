"""Sliding windows: tiles change nothing, memory is bounded, pairs are blended as pairs."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.prediction.window_grid import window_grid
from lib.prediction.windows import Outputs, WindowRun
from lib.volumes.boxes import Box

SHAPE = (37, 29, 17)


class Collected:
    """Puts consumed boxes together and notes how large they were."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.arrays, self.seen = shape, {}, np.zeros(shape, int)
        self.largest = 0

    def __call__(self, box: Box, outputs: Outputs) -> None:
        where = tuple(slice(a, b) for a, b in box)
        self.seen[where] += 1
        for name, out in outputs.items():
            if name not in self.arrays:
                self.arrays[name] = np.zeros((out.shape[0], *self.shape), np.float32)
            self.arrays[name][(slice(None), *where)] = out.numpy()
            self.largest = max(self.largest, out.numel() * 4)


def on_voxels(volume: np.ndarray, predict):
    """What a run evaluates, for a predictor of voxels: (B, 1, *window) -> named outputs."""

    def evaluate(boxes: list[Box]) -> Outputs:
        images = np.stack([volume[tuple(slice(a, b) for a, b in box)] for box in boxes])
        return predict(torch.from_numpy(images).float().unsqueeze(1))

    return evaluate


def run(volume: np.ndarray, predict, channels: int, window=(16, 12, 8), **options) -> Collected:
    out = Collected(volume.shape)
    grid = window_grid(volume.shape, window, 0.25)
    WindowRun(grid, on_voxels(volume, predict), out, channels, **options).run()
    return out


def network() -> nn.Module:
    """Convolutions with group norm: outputs depend on the window, so blending matters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)
    ).eval()


def test_windows_cover_the_volume_and_stay_inside() -> None:
    for shape in [(5, 5, 1), (16, 12, 8), (17, 40, 9), (100, 13, 25)]:
        grid = window_grid(shape, (16, 12, 8), 0.5)
        for axis in range(3):
            covered = np.zeros(shape[axis], int)
            for start in grid.starts[axis]:
                assert start >= 0 and start + grid.window[axis] <= shape[axis]
                covered[start : start + grid.window[axis]] += 1
            assert covered.min() >= 1
            steps = np.diff(grid.starts[axis])
            assert steps.size == 0 or steps.max() <= np.ceil(grid.window[axis] * 0.5)


@pytest.mark.parametrize(
    ("shape", "window", "count", "passes"),
    [
        ((250, 250, 40), (160, 160, 32), 4, 1.41),  # eight windows and 2.62 passes as wanted
        ((512, 512, 10), (160, 160, 32), 9, 1.38),  # 16 and 1.56
        ((160, 160, 32), (160, 160, 32), 1, 1.0),
        ((500, 400, 7), (64, 64, 1), 7 * 77, 1.67),  # a network of two axes
    ],
)
def test_windows_are_fitted_to_the_volume(
    shape: tuple[int, int, int], window: tuple[int, int, int], count: int, passes: float
) -> None:
    grid = window_grid(shape, window, 0.25)
    assert grid.count == count
    assert count * np.prod(grid.window) / np.prod(shape) <= passes
    assert window[2] > 1 or grid.window[2] == 1
    for axis in range(3):
        steps = np.diff(grid.starts[axis])
        assert (grid.window[axis] - steps >= int(0.25 * min(shape[axis], window[axis]))).all()


def test_fitted_windows_cover_any_volume_with_the_wanted_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape, window = (tuple(rng.integers(1, most, 3).tolist()) for most in (90, 40))
        overlap = float(rng.choice([0.0, 0.25, 0.5, 0.9]))
        grid = window_grid(shape, window, overlap)
        assert np.prod(grid.window) <= 1.25 * np.prod(window)
        for n, size, wanted, starts in zip(shape, grid.window, window, grid.starts, strict=True):
            largest = min(n, wanted)
            repeated = largest - max(1, int(largest * (1 - overlap)))
            assert starts[0] == 0 and starts[-1] + size == n and size <= 1.5 * wanted
            steps = np.diff(starts)
            assert (steps > 0).all() and (size - steps >= repeated).all()


def test_a_voxelwise_function_comes_back_unchanged() -> None:
    volume = np.random.default_rng(0).random(SHAPE, np.float32)
    out = run(volume, lambda x: {"a": torch.cat([x, 2 * x], 1)}, 2)
    np.testing.assert_allclose(out.arrays["a"], np.stack([volume, 2 * volume]), rtol=1e-5)
    assert (out.seen == 1).all()


@pytest.mark.parametrize("tile_bytes", [1, 60_000])
def test_tiles_equal_the_whole_volume(tile_bytes: int) -> None:
    volume = np.random.default_rng(1).random(SHAPE, np.float32)
    net = network()
    whole = run(volume, lambda x: {"a": net(x)}, 3)
    tiled = run(volume, lambda x: {"a": net(x)}, 3, tile_bytes=tile_bytes)
    assert tiled.largest < whole.largest
    np.testing.assert_array_equal(tiled.arrays["a"], whole.arrays["a"])


def test_batches_equal_single_windows() -> None:
    volume = np.random.default_rng(2).random(SHAPE, np.float32)
    net = network()
    single = run(volume, lambda x: {"a": net(x)}, 3)
    batched = run(volume, lambda x: {"a": net(x)}, 3, batch_size=4)
    np.testing.assert_allclose(batched.arrays["a"], single.arrays["a"], atol=1e-5)


def test_the_blend_is_the_weighted_mean_of_all_windows() -> None:
    volume = np.random.default_rng(3).random(SHAPE, np.float32)
    net = network()
    grid = window_grid(SHAPE, (16, 12, 8), 0.25)
    total, weight = np.zeros((3, *SHAPE)), np.zeros(SHAPE)
    bell = np.einsum("i,j,k->ijk", *[w.astype(np.float64) for w in grid.axis_weights])
    for x in grid.starts[0]:
        for y in grid.starts[1]:
            for z in grid.starts[2]:
                where = (slice(x, x + 16), slice(y, y + 12), slice(z, z + 8))
                with torch.inference_mode():
                    out = net(torch.from_numpy(volume[where].copy())[None, None])[0].numpy()
                total[(slice(None), *where)] += out * bell
                weight[where] += bell
    found = run(volume, lambda x: {"a": net(x)}, 3)
    np.testing.assert_allclose(found.arrays["a"], total / weight, atol=2e-5)


def test_pairs_are_blended_from_windows_that_hold_both_ends() -> None:
    volume = np.random.default_rng(4).random(SHAPE, np.float32)
    offsets = [(1, 0, 0), (0, -5, 0), (3, 2, -2), (0, 0, 20)]

    def differences(x: Tensor) -> Outputs:
        rolled = [x - torch.roll(x, [-o for o in off], (2, 3, 4)) for off in offsets]
        return {"pairs": torch.cat(rolled, 1)}

    out = run(volume, differences, 4, pair_offsets={"pairs": offsets}).arrays["pairs"]
    held = 0
    for a, off in enumerate(offsets):
        for v in np.ndindex(*SHAPE):
            w = tuple(int(i + o) for i, o in zip(v, off, strict=True))
            inside = all(0 <= i < n for i, n in zip(w, SHAPE, strict=True))
            if a == 3 or not inside:  # no window is 20 deep; nothing beyond the volume
                assert out[(a, *v)] == 0
            elif out[(a, *v)] != 0:
                held += 1
                assert out[(a, *v)] == pytest.approx(volume[v] - volume[w], abs=1e-5)
    assert held > 2.3 * volume.size


def test_a_flat_image_and_progress() -> None:
    volume = np.random.default_rng(5).random((40, 30, 1), np.float32)
    steps: list[tuple[int, int]] = []
    out = run(volume, lambda x: {"a": x}, 1, progress=lambda n, m: steps.append((n, m)))
    np.testing.assert_allclose(out.arrays["a"][0], volume, rtol=1e-5)
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_an_empty_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="with voxels"):
        window_grid((3, 0, 5), (2, 2, 2), 0.0)


@pytest.mark.parametrize(
    "box",
    [
        ((0, 37), (0, 29), (0, 17)),
        ((5, 20), (0, 11), (3, 9)),
        ((20, 37), (13, 14), (16, 17)),
        ((0, 1), (28, 29), (0, 2)),
    ],
)
def test_a_part_has_the_very_values_of_a_run_over_everything(box: Box) -> None:
    volume, net = np.random.default_rng(1).random(SHAPE, np.float32), network()
    pairs = {"pairs": [(1, 0, 0), (0, 3, 0), (0, 0, 2)]}

    def predict(windows: Tensor) -> Outputs:
        return {"plain": net(windows), "pairs": net(windows)}

    whole = run(volume, predict, 6, pair_offsets=pairs)
    part = run(volume, predict, 6, pair_offsets=pairs, box=box)
    where = tuple(slice(a, b) for a, b in box)
    assert part.seen.sum() == part.seen[where].sum() == part.seen[where].size
    for name in ("plain", "pairs"):
        found, wanted = (c.arrays[name][(slice(None), *where)] for c in (part, whole))
        assert np.array_equal(found, wanted)


def test_a_part_evaluates_only_the_windows_that_touch_it() -> None:
    grid = window_grid(SHAPE, (16, 12, 8), 0.25)
    asked: list[Box] = []

    def evaluate(boxes: list[Box]) -> Outputs:
        asked.extend(boxes)
        return {"ones": torch.ones((len(boxes), 1, *grid.window))}

    steps: list[tuple[int, int]] = []
    WindowRun(
        grid, evaluate, lambda *_: None, 1, box=((0, 4), (0, 4), (0, 4)),
        progress=lambda done, total: steps.append((done, total)),
    ).run()  # fmt: skip
    assert asked == [((0, 16), (0, 12), (0, 8))]
    assert steps[-1] == (1, 1)
