"""What a click costs: first, next, and uncached as stock tools do it, in one run.

    python benchmarks/clicks.py [--threads 2] [--repeats 7] [--clock wall|cpu]
                                [--backbones segresnet:16 segresnet:48]

`--clock cpu` counts processor seconds, for a machine that others use at the same time.

A click's cost depends on the object's size, so the object is planted: the backbone (of random
weights) runs in full, but what it hands on are features made here, an object of a tenth of the
window in a background near enough to it that its neighbourhood must be judged too. "90 %" is
the same with an object that fills nine tenths. Six points are given, three on the object.

"uncached" does what a stock infer task does for each click on the same window: reads it,
normalises, runs backbone, the dense prompt encoder and the heads that the answer needs on every
voxel, and decodes with the same connected components. All times go from a viewer's points to
a 0/1 volume of the study's size; `served_clicks.py` measures the server's part.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import machine
from lib.clicks.masks import parts_holding
from lib.clicks.source import ClickSource
from lib.clicks.viewer import (
    ViewerRequest,
    click_source,
    segment_in_viewer,
    whole_mask,
)
from lib.clicks.windows import window_at
from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import use_bfloat16
from lib.prediction.predictor import Predictor
from lib.prompts.points import PointPrompts
from lib.volumes.boxes import Triple, box_origin, box_slices
from lib.volumes.contrast import normalize
from lib.volumes.frames import ViewerFrame, viewer_frame

STUDIES = {(160, 160, 24): (1024, 1024, 20), (160, 160, 64): (512, 512, 80)}
SIZES_NM = (4.6, 4.6, 50.0)
SHARES = (0.1, 0.9)
APART = 2.5
"""Embedding distance of object and background: beyond the margin, within twice delta_d."""
Clock = Callable[[], float]


class Planted(nn.Module):
    """A backbone that runs, and features that do not come from it.

    Args:
        backbone: what the time goes into.
        features: (1, F, *window); handed on.
    """

    def __init__(self, backbone: nn.Module, features: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.features = features

    def forward(self, image: Tensor) -> Tensor:
        """(1, 1, *window) -> (1, F, *window)."""
        out: Tensor = self.backbone(image)
        assert out.shape == self.features.shape, (out.shape, self.features.shape)
        return self.features


@dataclass
class Scene:
    """A study with an object around its middle voxel, and what clicks on it work on."""

    source: ClickSource
    frame: ViewerFrame
    shape: Triple
    positive: list[list[int]]
    negative: list[list[int]]

    def answer(self, count: int) -> np.ndarray:
        """The app's answer to the first `count` points of each sign."""
        request = ViewerRequest(self.positive[:count], self.negative[: count if count > 1 else 0])
        return whole_mask(segment_in_viewer(self.source, self.frame, request), self.shape)

    def first(self) -> np.ndarray:
        """The app's answer to one point, with nothing in the cache."""
        self.source.cache.clear()
        return self.answer(1)


@dataclass(frozen=True)
class Row:
    """Seconds of one backbone in one window.

    Args:
        backbone: the window's features alone.
        first: a click with nothing in the cache.
        after, filled: a further click, on an object of each of SHARES.
        stock: a click without a cache.
    """

    backbone: float
    first: float
    after: float
    filled: float
    stock: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--head-size", type=int, default=32)
    parser.add_argument("--backbones", nargs="+", default=["segresnet:16", "segresnet:48"])
    parser.add_argument("--windows", nargs="+", type=int, default=[24, 64], help="their sections")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    print(f"{machine(torch.device(options.device))}; clock: {options.clock}\n")
    notes: list[str] = []
    print(
        "| backbone | window (z y x) | study (z y x) | window's features | first click "
        "| next click | next, 90 % object | uncached | uncached / next |"
    )
    print("|---|---|---|" + "---:|" * 6)
    for window, shape in STUDIES.items():
        if window[2] not in options.windows:
            continue
        rows = {}
        for name in options.backbones:
            net = network(name, options.head_size).to(options.device)
            rows[name] = row = measure(net, window, shape, options.repeats, clock)
            parameters = sum(p.numel() for p in net.backbone.parameters()) / 1e6
            times = (row.backbone, row.first, row.after, row.filled, row.stock)
            cells = " | ".join(f"{1000 * t:.0f} ms" for t in times)
            sizes = [" x ".join(str(n) for n in reversed(s)) for s in (window, shape)]
            print(
                f"| {name.replace(':', ', width ')}, {parameters:.1f} M | {sizes[0]} | {sizes[1]} "
                f"| {cells} | {row.stock / row.after:.1f} |",
                flush=True,
            )
        if len(rows) > 1:
            small, *_, large = rows.values()
            notes.append(
                f"- {window[2]} sections: last backbone : first = "
                f"{large.backbone / small.backbone:.1f} : 1, a next click on them "
                f"{large.after / small.after:.2f} : 1"
            )
    print("\n".join(["", *notes]))


def network(name: str, head_size: int) -> NeuropilNet:
    """A network with mask head and an awake prompt encoder; name: backbone:width."""
    torch.manual_seed(0)
    kind, width = name.split(":")
    model = ModelSettings.model_validate(
        {"backbone": kind, "feature_size": int(width), "head_size": head_size, "embedding_size": 12}
    )
    net = build_network(model, LossSettings(weight_prompt=1.0), load_hierarchy()).eval()
    torch.nn.init.normal_(net.prompt_encoder.gate, std=0.01)
    return net


def measure(net: NeuropilNet, window: Triple, shape: Triple, repeats: int, clock: Clock) -> Row:
    """Time one backbone in one window."""
    backbone = net.backbone
    after = []
    for share in SHARES:
        scene = planted(net, backbone, window, shape, share)
        mask = scene.answer(3)
        size = math.prod(min(w, n) for w, n in zip(window, shape, strict=True))
        found = float(mask.sum()) / size
        assert 0.8 * share < found < 1.2 * share, f"planted {share} of the window, found {found}"
        after.append(best(lambda: scene.answer(3), repeats, clock))  # noqa: B023
    scene = planted(net, backbone, window, shape, SHARES[0])
    few = 2 if repeats > 2 else 1
    scene.first()
    first = best(scene.first, few, clock)
    stock = best(lambda: uncached(scene), few, clock)
    alone = best(
        lambda: scene.source.features(window_of(scene)), few, clock, scene.source.cache.clear
    )
    net.backbone = backbone
    return Row(alone, first, after[0], after[1], stock)


def window_of(scene: Scene) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """The window that the clicks lie in."""
    return window_at(scene.positive[0], scene.source.window, scene.source.shape)


def planted(
    net: NeuropilNet, backbone: nn.Module, window: Triple, shape: Triple, share: float
) -> Scene:
    """A tube along x through the middle of the window, of a share of its voxels."""
    device = next(net.parameters()).device
    size = [min(w, n) for w, n in zip(window, shape, strict=True)]
    half = [math.sqrt(share) * n / 2 for n in size]
    inside = torch.zeros(size, dtype=torch.long)
    y, z = (
        slice(round(n / 2 - h), round(n / 2 + h)) for n, h in zip(size[1:], half[1:], strict=True)
    )
    inside[:, y, z] = 1
    torch.manual_seed(1)
    channels = net.feature_channels
    codes = 3.0 * torch.randn(2, channels)
    features = codes[inside] + 0.05 * torch.randn(*size, channels)
    set_distance(net, codes.to(device), APART)
    net.backbone = Planted(backbone, features.to(device).movedim(-1, 0)[None])  # type: ignore[assignment]
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    inference = InferenceSettings(click_window=window, click_window_limit=window)
    frame = viewer_frame(shape, SIZES_NM)
    predictor = Predictor(net, load_hierarchy(), inference)
    source = click_source(predictor, "one", image, "image", frame, FeatureCache(2**31))
    low = box_origin(window_at([n // 2 for n in shape], source.window, source.shape))
    middle = [a + n // 2 for a, n in zip(low, size, strict=True)]
    beside = round(half[1]) + 3
    positive = [[middle[0] + dx, *middle[1:]] for dx in (0, 12, -20)]
    negative = [[x, y + beside, z] for x, y, z in positive]
    return Scene(source, frame, shape, positive, negative)


def set_distance(net: NeuropilNet, codes: Tensor, distance: float) -> None:
    """Scale the instance head so that two features come out so far apart."""
    with torch.no_grad():
        there = net.task_heads.rows(codes, ("instance",))["instance"]
        factor = distance / float((there[0] - there[1]).norm())
        for parameter in net.task_heads.layers["instance"].parameters():
            parameter.mul_(factor)


def uncached(scene: Scene) -> np.ndarray:
    """One click as stock tools answer it: everything anew."""
    source, net = scene.source, scene.source.net
    box = window_of(scene)
    low = np.array(box_origin(box))
    inside = [np.array(p) - low for p in (scene.positive, scene.negative)]
    contrast = source.cache.contrast(source.image_key, lambda: (0.0, 255.0))
    patch = normalize(np.asarray(source.image[box_slices(box)]), contrast)
    device = next(net.parameters()).device
    tensor = torch.from_numpy(patch)[None, None].to(device)
    prompts = PointPrompts.from_clicks(
        inside[0].tolist(), inside[1].tolist(), voxel_size_nm=source.voxel_size_nm
    ).to(device)
    half = use_bfloat16(source.inference.precision, device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        features = net.features(tensor)
        features = features + net.prompt_encoder.dense(prompts, tuple(patch.shape))
        logits = net.heads(features, prompts, ("instance", "semantic"))["mask"]
    mask = parts_holding(logits[0, 0].float().cpu().numpy() > 0, inside[0])
    whole = np.zeros(scene.shape, np.uint8)
    whole[box_slices(scene.frame.viewer_box(box))] = scene.frame.mask_to_viewer(mask, box)
    return whole


def best(
    job: Callable[[], object],
    repeats: int,
    clock: Clock,
    before: Callable[[], object] = lambda: None,
) -> float:
    """The least of several timings: others share the machine."""
    times = []
    for _ in range(repeats):
        before()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = clock()
        job()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times)


if __name__ == "__main__":
    main()
