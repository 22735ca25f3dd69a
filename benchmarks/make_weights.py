"""Make the weights that ship: import the data, make synthetic neuropil, train, publish.

    make weights                             everything, into runs/weights and model/
    python benchmarks/make_weights.py --out DIR --recipe benchmarks/recipes/shipped.yaml

Each step is skipped where it is done; a training that was stopped or killed goes on from its
last checkpoint. Without the shared data the recipe trains on synthetic neuropil alone, and
says so.

On a GPU that is lent for minutes, with nothing but what is carried there (see
benchmarks/data_pack.py), the run goes on from slice to slice:

    python benchmarks/import_shared_data.py HELD --hold-back        once, where the data are
    python benchmarks/data_pack.py pack PACK HELD                   36 MB
    make weights ARGS="--pack PACK --parts PARTS --minutes 9"       again and again
    make weights ARGS="--parts PARTS"                               publishes, where the data are

PARTS holds the checkpoint in files under 16 MB: it is read at the start and written at the end.
On a GPU the backbone is compiled, the precision is bfloat16 and the batch is what fits the
device's memory (benchmarks/fit_device.py), the learning rate rising with its root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.data_pack import cut, join  # noqa: E402
from benchmarks.fit_device import device_settings  # noqa: E402
from benchmarks.import_shared_data import data_folder  # noqa: E402


@dataclass(frozen=True)
class Synthetic:
    """A study of synthetic neuropil.

    Args:
        name: of its folder.
        seed: of its first item; seeds from 9000 on are for evaluation only.
    """

    name: str
    seed: int
    items: int
    size: tuple[int, int, int]
    voxel_size_nm: tuple[float, float, float]

    def arguments(self, studies: Path) -> list[str]:
        """Of `main.py`."""
        return [
            "demo", "--studies", str(studies), "--items", str(self.items), "--partial", "0",
            "--seed", str(self.seed), "--size", *map(str, self.size),
            "--voxel-size-nm", *map(str, self.voxel_size_nm),
        ]  # fmt: skip


TRAINING = (
    Synthetic("synthetic-sections", 1000, 24, (192, 192, 48), (8.0, 8.0, 40.0)),
    Synthetic("synthetic-isotropic", 2000, 16, (160, 160, 112), (10.0, 10.0, 10.0)),
)
UNSEEN = (
    Synthetic("unseen-sections", 9000, 2, (192, 192, 48), (8.0, 8.0, 40.0)),
    Synthetic("unseen-isotropic", 9500, 1, (160, 160, 112), (10.0, 10.0, 10.0)),
)


def run(*arguments: str) -> None:
    """One command of this repository; its fault ends everything."""
    print("python", " ".join(arguments), flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def once(folder: Path, *arguments: str) -> None:
    """Run a command unless its stamp says that this very one is done."""
    stamp = folder / ".done"
    wanted = " ".join(arguments)
    if not stamp.exists() or stamp.read_text() != wanted:
        run(*arguments)
        stamp.write_text(wanted)


def main() -> int:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "weights")
    parser.add_argument(
        "--recipe", type=Path, default=ROOT / "benchmarks" / "recipes" / "shipped.yaml"
    )
    parser.add_argument("--publish", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--max-steps", type=int, help="a smaller budget than the recipe's")
    parser.add_argument("--minutes", type=float, help="stop so long after the start of training")
    parser.add_argument("--pack", type=Path, help="the real data, from benchmarks/data_pack.py")
    parser.add_argument("--parts", type=Path, help="folder of the checkpoint, in small files")
    parser.add_argument("--start", type=Path, help="weights to start from instead of from scratch")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings beside the recipe's"
    )
    args = parser.parse_args()
    out = args.out.resolve()
    studies: list[Path] = []
    alone: list[str] = []
    if args.pack is not None:
        real = out / "real"
        real.mkdir(parents=True, exist_ok=True)
        once(real, "benchmarks/data_pack.py", "unpack", str(args.pack.resolve()), str(real))
        studies.append(real)
    elif data_folder().is_dir():
        real = out / "real"
        real.mkdir(parents=True, exist_ok=True)
        once(real, "benchmarks/import_shared_data.py", str(real), "--replace")
        studies.append(real)
    else:
        print(f"no data at {data_folder()} (set NEUROPIL_DATA): synthetic neuropil alone")
        alone = ["data.group_weights={}"]
    for study in (*TRAINING, *UNSEEN):
        folder = out / study.name
        folder.mkdir(parents=True, exist_ok=True)
        once(folder, "main.py", *study.arguments(folder))
    studies += [out / study.name for study in TRAINING]
    limit = [] if args.max_steps is None else ["--max-steps", str(args.max_steps)]
    limit += [] if args.minutes is None else ["--minutes", str(args.minutes)]
    start = ["--from-scratch"] if args.start is None else ["--weights", str(args.start.resolve())]
    checkpoint = out / "run" / "checkpoint.pt"
    if args.parts is not None and args.parts.is_dir() and not checkpoint.exists():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_bytes(join(args.parts))
    chosen = [*alone, *device_settings(out, args.recipe), *args.set]
    run(
        "main.py", "train", "--studies", *map(str, studies), "--out", str(out / "run"),
        "--config", str(args.recipe.resolve()), *start,
        "--publish", str(args.publish.resolve()), *limit, *(["--set", *chosen] if chosen else []),
    )  # fmt: skip
    if args.parts is not None:
        cut(checkpoint.read_bytes(), args.parts)
    if args.minutes is None:  # a slice more may come
        weights, named = ["--weights", str(args.publish.resolve())], [*map(str, studies)]
        run("benchmarks/fit_joining.py", *named, *weights)
        run("benchmarks/fit_clicks.py", *named, *weights)
        run("benchmarks/make_reservoir.py", "--studies", *named, *weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
