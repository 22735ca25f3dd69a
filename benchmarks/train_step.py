"""What a training step costs, part by part, next to a plain implementation.

    OMP_NUM_THREADS=2 python benchmarks/train_step.py [--device cuda] [--no-plain]

Prints one markdown table. "CPU ms" is processor time over all threads (on a GPU the elapsed
time), "ms" the elapsed time. "plain" is the CPU time of benchmarks/plain_criterion.py: one
object, one class at a time. Values marked ~ are extrapolated from the first few objects, since
plain costs grow with their number.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import plain_criterion as plain
from benchmarks.measure import Cost, machine, measure, timed
from lib.configs.settings import LossSettings, Settings
from lib.data.batches import Batch, to_device
from lib.engine.prompting import draw_prompts
from lib.engine.step import StepContext, combined_step
from lib.labels.hierarchy import load_hierarchy
from lib.losses.criterion import Criterion
from lib.networks.devices import amp_type, autocast_for
from lib.networks.model import build_network
from lib.targets.direction import centroid_direction
from lib.targets.distance import object_distance, relative_distance
from lib.targets.objects import index_objects
from lib.targets.prepare import Targets, prepare_targets
from lib.targets.skeleton import skeleton_direction
from lib.targets.structure_tensor import structure_tensors
from lib.targets.weights import edge_mask, pull_weights

SPACING = (6.0, 6.0, 30.0)
PLAIN_OBJECTS = 6
HIERARCHY = load_hierarchy()
CASES = [(1, (128, 128, 32), 40), (1, (128, 128, 32), 400), (2, (128, 128, 16), 40)]
CASES += [(2, (128, 128, 16), 400)]
TERMS = {
    "semantic": ("ce", "iou", "dice", "coarse"),
    "instance": ("pull", "push", "norm"),
    "geometry": ("dir", "cov", "raw"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    part: str
    ours: Cost
    plain: float | None = None
    guessed: bool = False

    def cells(self) -> list[str]:
        memory = "" if self.ours.mebibytes is None else f"{self.ours.mebibytes:.0f}"
        slow = "" if self.plain is None else f"{'~' * self.guessed}{1000 * self.plain:,.0f}"
        ratio = "" if self.plain is None else f"{self.plain / self.ours.busy:,.0f}x"
        times = [f"{1000 * t:,.1f}" for t in (self.ours.busy, self.ours.wall)]
        return [self.part, *times, memory, slow, ratio]


def make_batch(samples: int, shape: tuple[int, ...], objects: int) -> Batch:
    """Fully annotated cells with 12 nm of extracellular space between them."""
    rng = np.random.default_rng(0)
    axes = [np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    maps = []
    for _ in range(samples):
        seeds = rng.random((objects, len(shape))) * shape * SPACING
        gap, nearest = cKDTree(seeds).query(place, k=2)
        inside = gap[:, 1] - gap[:, 0] > 12
        maps.append(np.where(inside, nearest[:, 0] + 1, 0).reshape(shape))
    instance = torch.from_numpy(np.stack(maps)).long()
    classes = torch.from_numpy(rng.integers(2, HIERARCHY.num_classes, objects + 1))
    classes[0] = 0
    return {
        "image": torch.rand((samples, 1, *shape)),
        "class_sets": (1 << classes[instance]).int(),
        "instance": instance,
        "voxel_size_nm": torch.tensor([SPACING] * samples),
        "item": ["benchmark"] * samples,
    }


class Bench:
    """One case: a batch on a device, its targets, and outputs as the network lays them out."""

    def __init__(
        self, case: tuple[int, tuple[int, ...], int], device: torch.device, repeat: int, slow: bool
    ) -> None:
        self.device, self.repeat, self.slow = device, repeat, slow
        self.batch = to_device(make_batch(*case), device)
        self.objects = int((torch.unique(self.batch["instance"]) > 0).sum())
        self.settings = Settings()
        self.loss = self.settings.loss
        self.targets = prepare_targets(self.batch, HIERARCHY, self.loss)
        size = self.settings.model.embedding_size
        channels = {"semantic": 12, "coarse": 5, "instance": size, "geometry": 16}
        self.outputs = {
            k: torch.randn((case[0], c, *case[1]), device=device)
            .contiguous(memory_format=torch.channels_last_3d)
            .requires_grad_()
            for k, c in channels.items()
        }

    def row(
        self,
        part: str,
        work: Callable[[], object],
        slow: Callable[[], object] | None = None,
        per_object: bool = False,
    ) -> Row:
        """Measure a part and, when asked, its plain counterpart."""
        ours = measure(work, self.device, self.repeat)
        if slow is None or not self.slow:
            return Row(part, ours)
        scale = max(1.0, self.objects / PLAIN_OBJECTS) if per_object else 1.0
        return Row(part, ours, scale * timed(slow, torch.device("cpu")).busy, scale > 1)

    def rows(self) -> Iterator[Row]:
        yield from self.target_rows()
        yield from self.loss_rows()
        yield from self.step_rows()

    def target_rows(self) -> Iterator[Row]:
        """Each target by itself, then all."""
        batch, sizes, loss = self.batch, self.batch["voxel_size_nm"], self.loss
        instance, unknown = batch["instance"], batch["instance"] < 0
        yield self.row("targets: objects as index lists", lambda: index_objects(instance))
        objects = index_objects(instance)
        labels, count = objects.labels, objects.count
        few = [np.where(m <= PLAIN_OBJECTS, m, 0) for m in instance.cpu().numpy()]

        def plainly(make: Callable[..., object], *more: object) -> Callable[[], object]:
            return lambda: [make(m, *more) for m in few]

        yield self.row(
            "targets: edge weights",
            lambda: edge_mask(instance),
            plainly(plain.edge_weight, loss.weight_edge),
            per_object=True,
        )
        distance = object_distance(labels, unknown, sizes)
        depth = relative_distance(distance, labels, count)
        yield self.row(
            "targets: distance and bone weights",
            lambda: pull_weights(
                instance,
                relative_distance(object_distance(labels, unknown, sizes), labels, count),
                1.0,
                loss.weight_bone,
            ),
            plainly(plain.bone_weight, SPACING, loss.weight_bone),
            per_object=True,
        )
        yield self.row(
            "targets: direction to centroid",
            lambda: centroid_direction(objects, sizes),
            plainly(plain.direction, SPACING),
            per_object=True,
        )
        yield self.row(
            "targets: direction to skeleton (not in all)",
            lambda: skeleton_direction(labels, depth, sizes),
        )
        yield self.row(
            "targets: structure tensor (without distance)",
            lambda: structure_tensors(
                distance, depth, labels, unknown, count, sizes, loss.cov_sigma_nm
            ),
            plainly(plain.tensor, SPACING, loss.cov_sigma_nm),
            per_object=True,
        )
        yield self.row(
            "**all targets, once for both modes**",
            lambda: prepare_targets(batch, HIERARCHY, loss),
        )

    def loss_rows(self) -> Iterator[Row]:
        """Each term forward and backward, each branch, the criterion, both modes."""
        for branch, terms in TERMS.items():
            for term in terms:
                yield self.row(f"loss: {term}", self.criterion(_only(branch, (term,))))
            yield self.row(
                f"loss: {branch}", self.criterion(_only(branch, terms)), self.plain_loss(branch)
            )
        criterion = self.criterion(self.loss)
        yield self.row("**loss: one mode**", criterion)

        def both() -> None:
            targets = prepare_targets(self.batch, HIERARCHY, self.loss)
            for _ in range(2):
                self.criterion(self.loss, targets)()

        yield self.row("**all targets and losses of both modes**", both)

    def criterion(self, loss: LossSettings, targets: Targets | None = None) -> Callable[[], None]:
        """Forward and backward of the criterion with some weights."""
        compute = Criterion(loss, HIERARCHY)

        def work() -> None:
            _backward(compute(self.outputs, targets or self.targets)["loss"])
            for output in self.outputs.values():
                output.grad = None

        return work

    def plain_loss(self, branch: str) -> Callable[[], None]:
        """Forward and backward of a branch of the plain criterion, on the CPU."""
        o = {k: v.detach().cpu().requires_grad_() for k, v in self.outputs.items()}
        t, sets = self.targets, self.batch["class_sets"].cpu()

        def work() -> None:
            if branch == "semantic":
                terms = plain.semantic_terms(o["semantic"], o["coarse"], sets, HIERARCHY)
            elif branch == "instance":
                assert t.weight is not None
                terms = plain.instance_terms(
                    o["instance"], t.instance.cpu(), t.weight.cpu(), self.loss
                )
            else:
                assert t.direction is not None and t.tensor is not None
                maps = (t.image, t.foreground, t.foreground, t.direction, t.tensor)
                terms = plain.geometry_terms(o["geometry"], *(m.cpu() for m in maps))
            _backward(torch.stack(list(terms.values())).sum())

        return work

    def step_rows(self) -> Iterator[Row]:
        """The network and whole steps, in the precision that training chooses here."""
        torch.manual_seed(0)
        net = build_network(self.settings.model, self.loss, HIERARCHY).to(self.device).train()
        dtype = amp_type(self.settings.training, self.device)
        autocast = autocast_for(self.device, dtype)
        image = self.batch["image"]

        def forward() -> dict[str, Tensor]:
            with autocast():
                return net.heads(net.features(image))

        def backward() -> None:
            _backward(torch.stack([v.float().mean() for v in forward().values()]).sum())
            net.zero_grad()

        def backbone() -> None:
            with autocast():
                features = net.features(image)
            _backward(features.float().mean())
            net.zero_grad()

        yield self.row("network: forward", forward)
        yield self.row("network: backbone, forward and backward", backbone)
        yield self.row("network: backbone and heads, forward and backward", backward)
        steps = {}
        for name, modes in {"automatic-only": ["automatic"], "combined": None}.items():
            changed = {} if modes is None else {"training": {"training_modes": modes}}
            settings = Settings.model_validate(changed)
            context = StepContext(
                net, Criterion(self.loss, HIERARCHY), settings, HIERARCHY, autocast
            )
            work = partial(self.step, context, modes is None)
            steps[name] = self.row(f"**{name} step**", work)
            yield steps[name]
            net.zero_grad()
        ratio = steps["combined"].ours.busy / steps["automatic-only"].ours.busy
        name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
        print(f"combined / automatic-only: {ratio:.2f} ({name})", file=sys.stderr)

    def step(self, context: StepContext, prompted: bool) -> None:
        """One optimiser step's forward and backward, clicks included."""
        samples = self.batch["image"].shape[0]
        generators = [torch.Generator().manual_seed(b) for b in range(samples)]
        prompts = (
            draw_prompts(self.batch, HIERARCHY, context.settings, generators) if prompted else None
        )
        combined_step(context, self.batch, prompts)


def _backward(value: Tensor) -> None:
    torch.autograd.backward([value])


def _only(branch: str, terms: tuple[str, ...]) -> LossSettings:
    """Settings in which only these terms of one branch have a weight."""
    weights = {f"weight_{b}": float(b == branch) for b in TERMS}
    inner = {f"weight_{t}": float(t in terms) for ts in TERMS.values() for t in ts}
    return LossSettings.model_validate(weights | inner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-plain", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{machine(device)}\n")
    print("| patch (B x 1 x D x H x W), objects | part | CPU ms | ms | peak MiB | plain | ratio |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for samples, (x, y, z), objects in CASES:
        case = f"{samples} x 1 x {z} x {y} x {x}, {objects}"
        bench = Bench((samples, (x, y, z), objects), device, options.repeat, not options.no_plain)
        for row in bench.rows():
            print(f"| {case} | {' | '.join(row.cells())} |", flush=True)


if __name__ == "__main__":
    main()
