"""What a device can hold: the settings that a GPU changes in a recipe.

python benchmarks/fit_device.py RECIPE      prints them; nothing on a CPU
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.configs.load import hierarchy_of, load_settings  # noqa: E402
from lib.configs.settings import Settings  # noqa: E402
from lib.networks.model import build_network  # noqa: E402

MEMORY_SHARE = 0.7
"""Of the device's memory that a batch may take; heads, losses and validation need the rest."""

HEADS = 2.0
"""Memory of a step against that of the backbone alone: heads, residual and losses, both modes."""

LARGEST_BATCH = 16
WORKERS = 8
"""Threads that prepare patches, where a GPU would wait for one."""

FILE = "device.json"


def device_settings(out: Path, recipe: Path) -> list[str]:
    """KEY=VALUE of what the device changes; the same in every slice of a run.

    Args:
        out: folder of the run, where the first slice writes down what it chose.
        recipe: of the run.
    """
    kept = out / FILE
    if kept.exists():
        return [str(pair) for pair in json.loads(kept.read_text())]
    if not torch.cuda.is_available():
        return []
    settings = load_settings(recipe, {})
    total = torch.cuda.get_device_properties(0).total_memory
    batch = fitting_batch(total, HEADS * memory_of_one(settings))
    rate = settings.training.learning_rate * math.sqrt(batch / settings.training.batch_size)
    pairs = [
        f"training.batch_size={batch}", f"training.learning_rate={rate:.6g}",
        f"training.workers={WORKERS}", "training.compile=inductor", "training.amp=bfloat16",
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(pairs))
    return pairs


def fitting_batch(total_bytes: float, bytes_of_one: float) -> int:
    """Samples that fit the share of a device's memory, at least 1."""
    return max(1, min(LARGEST_BATCH, int(MEMORY_SHARE * total_bytes / bytes_of_one)))


def memory_of_one(settings: Settings) -> int:
    """Bytes that the backbone's forward and backward pass of one patch takes on the GPU."""
    hierarchy = hierarchy_of(settings)
    net = build_network(settings.model, settings.loss, hierarchy).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        features = net.features(torch.rand(1, 1, *settings.data.patch_size, device="cuda"))
    features.float().square().mean().backward()
    return int(torch.cuda.max_memory_allocated() - before)


if __name__ == "__main__":
    print("\n".join(device_settings(Path("runs/fit"), Path(sys.argv[1]))))
