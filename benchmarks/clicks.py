"""What a click costs: first, next, and uncached as stock tools do it, in one run.

    python benchmarks/clicks.py [--threads 2] [--repeats 7] [--clock wall|cpu]

`--clock cpu` counts processor seconds, for a machine that others use at the same time.

Networks have random weights (a click's cost does not depend on them but through the number of
voxels whose embedding comes near a clicked one); the instance head is scaled so that a tenth
of a window is near, as trained networks have it, and `everything` shows the worst case.
The image is noise: no cost depends on its content. "uncached" does what a stock infer task
does for each click on the same window: reads it, normalises, runs backbone, the dense prompt
encoder and all heads on every voxel, and decodes with the same connected components.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.decoding.click_masks import clicked_object
from lib.decoding.click_source import ClickSource
from lib.decoding.click_windows import window_at
from lib.decoding.feature_cache import FeatureCache
from lib.decoding.forward import use_bfloat16
from lib.decoding.viewer_clicks import (
    ViewerRequest,
    click_source,
    segment_in_viewer,
    whole_mask,
)
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prompts.points import PointPrompts
from lib.volumes.boxes import box_origin, box_slices
from lib.volumes.contrast import normalize
from lib.volumes.frames import ViewerFrame, viewer_frame

STUDIES = {(160, 160, 24): (1024, 1024, 20), (160, 160, 64): (512, 512, 80)}
SIZES_NM = (4.6, 4.6, 50.0)
NEAR_SHARE = 0.1
Clock = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--head-size", type=int, default=ModelSettings().head_size)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    print(f"threads: {options.threads}, clock: {options.clock}, device: {options.device}\n")
    print(
        "| backbone | window (z y x) | study (z y x) | first click | next click "
        "| next, everything near | uncached | uncached / next |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|")
    nets = {width: network(width, options.head_size).to(options.device) for width in (16, 32)}
    for window, shape in STUDIES.items():
        for width, net in nets.items():
            parameters = sum(p.numel() for p in net.backbone.parameters()) / 1e6
            row = measure(net, window, shape, options.repeats, clock)
            cells = " | ".join(f"{1000 * t:.0f} ms" for t in row)
            names = [" x ".join(str(n) for n in reversed(s)) for s in (window, shape)]
            print(
                f"| width {width}, {parameters:.1f} M | {names[0]} | {names[1]} | {cells} "
                f"| {row[3] / row[1]:.1f} |",
                flush=True,
            )


def network(width: int, head_size: int) -> NeuropilNet:
    """A network with mask head and an awake prompt encoder."""
    torch.manual_seed(0)
    model = ModelSettings(feature_size=width, head_size=head_size)
    net = build_network(model, LossSettings(weight_prompt=1.0), load_hierarchy()).eval()
    torch.nn.init.normal_(net.prompt_encoder.gate, std=0.01)
    return net


def measure(
    net: NeuropilNet,
    window: tuple[int, int, int],
    shape: tuple[int, int, int],
    repeats: int,
    clock: Clock,
) -> tuple[float, float, float, float]:
    """Seconds: first click, next click, next click with everything near, uncached click."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, shape, dtype=np.uint8)
    inference = InferenceSettings(click_window=window, click_window_limit=window)
    frame = viewer_frame(shape, SIZES_NM)
    cache = FeatureCache(2**31)
    source = click_source(net, "one", image, "image", frame, cache, inference)
    middle = [n // 2 for n in shape]
    clicks = [[m + d for m, d in zip(middle, (dx, dx // 2, 0), strict=True)] for dx in range(24)]
    spread = spread_embedding(source, middle, NEAR_SHARE)

    def answer(count: int) -> np.ndarray:
        request = ViewerRequest(clicks[: (count + 1) // 2], clicks[-(count // 2) :][: count // 2])
        return whole_mask(segment_in_viewer(source, frame, request), shape)

    def first() -> None:
        cache.clear()
        answer(1)

    scale_embedding(net, spread)
    warm(first)
    one = best(first, 3, clock)
    warm(lambda: answer(6))
    after = best(lambda: answer(6), repeats, clock)
    stock = best(lambda: uncached(source, frame, clicks[:3], clicks[-3:], shape), 3, clock)
    scale_embedding(net, 1e-3 / spread)
    cache.clear()
    warm(lambda: answer(6))
    worst = best(lambda: answer(6), repeats, clock)
    scale_embedding(net, 1e3)
    return one, after, worst, stock


def uncached(
    source: ClickSource,
    frame: ViewerFrame,
    positive: list[list[int]],
    negative: list[list[int]],
    shape: tuple[int, int, int],
) -> np.ndarray:
    """One click as stock tools answer it: everything anew."""
    net = source.net
    box = window_at(positive[0], source.window, source.shape)
    low = np.array(box_origin(box))
    inside = [np.array(p) - low for p in (positive, negative)]
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
        logits = net.heads(features, prompts)["mask"]
    mask, _ = clicked_object(logits[0, 0].float().cpu().numpy(), inside[0], inside[1])
    whole = np.zeros(shape, np.uint8)
    whole[box_slices(frame.viewer_box(box))] = frame.mask_to_viewer(mask, box)
    return whole


def spread_embedding(source: ClickSource, point: list[int], share: float) -> float:
    """The factor on the embedding that leaves a share of a window within 2 delta_d."""
    box = window_at(point, source.window, source.shape)
    embedding = source.features(box).embedding.float()
    apart = (embedding - embedding[len(embedding) // 2]).norm(dim=1)
    source.cache.clear()
    return 2 * source.net.delta_d / max(float(apart[::7].quantile(share)), 1e-6)


def scale_embedding(net: NeuropilNet, factor: float) -> None:
    """Multiply the instance head."""
    with torch.no_grad():
        for parameter in net.task_heads.layers["instance"].parameters():
            parameter.mul_(factor)


def warm(job: Callable[[], object]) -> None:
    job()


def best(job: Callable[[], object], repeats: int, clock: Clock) -> float:
    """The least of several timings: others share the machine."""
    times = []
    for _ in range(repeats):
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
