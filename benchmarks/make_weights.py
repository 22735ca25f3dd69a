"""Make the weights that ship: import the data, make synthetic neuropil, train, publish.

    make weights                             everything, into runs/weights and model/
    python benchmarks/make_weights.py --out DIR --recipe benchmarks/recipes/shipped.yaml

Each step is skipped where it is done; a training that was stopped or killed goes on from its
last checkpoint. Without the shared data the recipe trains on synthetic neuropil alone, and
says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

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
    args = parser.parse_args()
    out = args.out.resolve()
    studies: list[Path] = []
    alone: list[str] = []
    if data_folder().is_dir():
        real = out / "real"
        real.mkdir(parents=True, exist_ok=True)
        once(real, "benchmarks/import_shared_data.py", str(real), "--replace")
        studies.append(real)
    else:
        print(f"no data at {data_folder()} (set NEUROPIL_DATA): synthetic neuropil alone")
        alone = ["--set", "data.group_weights={}"]
    for study in (*TRAINING, *UNSEEN):
        folder = out / study.name
        folder.mkdir(parents=True, exist_ok=True)
        once(folder, "main.py", *study.arguments(folder))
    studies += [out / study.name for study in TRAINING]
    limit = [] if args.max_steps is None else ["--max-steps", str(args.max_steps)]
    run(
        "main.py", "train", "--studies", *map(str, studies), "--out", str(out / "run"),
        "--config", str(args.recipe.resolve()), "--from-scratch",
        "--publish", str(args.publish.resolve()), *limit, *alone,
    )  # fmt: skip
    run(
        "benchmarks/make_reservoir.py", "--weights", str(args.publish.resolve()),
        "--studies", *map(str, studies),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
