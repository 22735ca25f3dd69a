"""Make the rehearsal rows that ship with the weights.

    python benchmarks/make_reservoir.py [--weights model/neuropil.pt] [--studies DIR ...]

Patches are drawn from the training items as training draws them (groups by their weights, every
class alike), and a few voxels of each become rows: their features, half precision, and what they
are. Without --studies the studies of `make weights` are used, which must be there. The file lies
beside the weights and names their digest; it must be made anew for other weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.adaptation.rehearsal import Reservoir, pooled, reservoir_path, volume_rows  # noqa: E402
from lib.configs.settings import Settings  # noqa: E402
from lib.data.items import labelled_items  # noqa: E402
from lib.data.sampler import PatchSampler  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy  # noqa: E402
from lib.networks.digests import digest_of  # noqa: E402
from lib.networks.model import NeuropilNet  # noqa: E402
from lib.networks.weights import load_network  # noqa: E402
from lib.prediction.filters import COUNT as FILTERS  # noqa: E402
from lib.volumes.study import Study  # noqa: E402

STUDIES = ("real", "synthetic-sections", "synthetic-isotropic")
PATCH = (96, 96, 16)


def make_reservoir(
    net: NeuropilNet,
    settings: Settings,
    hierarchy: LabelHierarchy,
    digest: str,
    studies: list[Path],
    patches: int,
    rows: int,
    seed: int = 0,
) -> Reservoir:
    """Rows of patches of the training items.

    Args:
        net: in evaluation mode.
        settings: it was trained with.
        hierarchy: of it.
        digest: SHA-256 of its file.
        studies: folders.
        patches: that are drawn.
        rows: of all patches, about.
    """
    sources = [item for root in studies for item in Study(root, hierarchy).items()]
    model = settings.model
    items = labelled_items(
        sources, hierarchy, 0.2, settings.data.cache_bytes, model.finest_nm, model.most_split
    )
    groups = {item.group for item in items}
    weights = {k: v for k, v in settings.data.group_weights.items() if k in groups}
    sampler = PatchSampler(items, PATCH, seed, False, weights)
    parts = []
    for step in range(patches):
        (patch,) = sampler.batch(step, [0])
        made = volume_rows(
            net, patch.image, patch.voxel_size_nm, patch.class_sets, hierarchy.unknown,
            rows // patches, seed + step, contrast=(0.0, 1.0),  # patches come normalised
        )  # fmt: skip
        parts.append(made)
        print(f"\r{step + 1} of {patches} patches", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return pooled(parts, digest, net.feature_channels + FILTERS)


def main() -> int:
    """Make the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--studies", type=Path, nargs="+")
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--rows", type=int, default=20_000)
    args = parser.parse_args()
    made = ROOT / "runs" / "weights"
    studies = args.studies or [made / name for name in STUDIES]
    if missing := [str(s) for s in studies if not s.is_dir()]:
        print(f"error: no studies {', '.join(missing)}: run make weights, or give --studies")
        return 1
    started = time.monotonic()
    net, settings, hierarchy, _ = load_network(args.weights)
    digest = digest_of(args.weights)
    reservoir = make_reservoir(
        net, settings, hierarchy, digest, studies, args.patches, args.rows
    )  # fmt: skip
    path = reservoir_path(args.weights)
    reservoir.save(path)
    size = path.stat().st_size / 2**20
    seconds = time.monotonic() - started
    print(f"{path}: {len(reservoir.sets)} rows, {size:.1f} MiB, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
