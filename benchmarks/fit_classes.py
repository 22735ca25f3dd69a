"""Fit the class heads of a weights file anew to what labels say, and store them in it.

    python benchmarks/fit_classes.py studies/real studies/synthetic [--weights model/neuropil.pt]

The last layers, of classes and of groups, learn from rows of training patches (drawn as training
draws them); the backbone and every other head stay as they are, and so do fragments as far as
they do not depend on classes. For labels that came or changed after a training: that the bodies
of FIB-25 are neurites and no glia, for instance, which the last layer alone can learn.
Rehearsal rows are of the backbone and follow; joins see classes, so `benchmarks/fit_joining.py`
goes after it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fit_joining import store  # noqa: E402
from benchmarks.make_reservoir import make_reservoir  # noqa: E402
from lib.adaptation.rehearsal import Reservoir  # noqa: E402
from lib.adaptation.row_losses import GROUPS, Targets, voxel_losses  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy  # noqa: E402
from lib.networks.digests import digest_of  # noqa: E402
from lib.networks.model import NeuropilNet  # noqa: E402
from lib.networks.study_heads import CLASSES  # noqa: E402
from lib.networks.weights import load_network  # noqa: E402

BATCH = 8192
COARSE = 0.2
"""Weight of the groups' loss, as in training."""
KEPT = ("mitochondria", "myelin")
"""Classes whose probabilities are asked to stay: training knew all that labels say of them."""
OPEN = ("dendrite", "axon")
"""Where labels leave open which of the two a voxel is, so should the answer."""
NARROW = 6
"""Classes of a set that says as good as nothing but "one of the two"."""


def fit_classes(
    net: NeuropilNet,
    rows: Reservoir,
    hierarchy: LabelHierarchy,
    steps: int,
    rate: float = 3e-3,
    hold: float = 1e-2,
    keep: float = 4.0,
    doubt: float = 0.5,
    seed: int = 0,
) -> None:
    """Fit the layers of classes and groups in place.

    Args:
        net: in evaluation mode, on the CPU.
        rows: features and class sets, filter responses are not looked at.
        hierarchy: of the network.
        steps: of Adam, at a cosine rate.
        rate: at its height.
        hold: pulls the layers to what they were: weight of the squared change.
        keep: weight of the cross-entropy between what `KEPT` classes were and are.
        doubt: weight of the cross-entropy between "as likely as the other" and what either of
            the `OPEN` classes is where labels allow both and little else.
        seed: of the batches.
    """
    layers = [net.task_heads.layers[name] for name in (CLASSES, GROUPS)]
    learned = [p for layer in layers for p in layer.parameters()]
    before = [p.detach().clone() for p in learned]
    with torch.inference_mode():
        hidden = hidden_of(net, rows.features[:, : net.feature_channels].float())
        old = said(layers[0], hidden).softmax(1)
    hidden, targets = hidden.clone(), Targets.of(rows.sets, hierarchy)
    kept = [hierarchy.class_names.index(name) for name in KEPT]
    old = old[:, kept].clone()
    one, other = (hierarchy.class_names.index(name) for name in OPEN)
    either = targets.known & targets.members[:, one] & targets.members[:, other]
    narrow = either & (targets.members.sum(1) <= NARROW)
    for p in learned:
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(learned, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        at = torch.randint(len(hidden), (BATCH,), generator=generator)
        classes, groups = (said(layer, hidden[at]) for layer in layers)
        loss = voxel_losses(classes, groups, targets[at], COARSE).mean()
        now = classes.softmax(1)[:, kept].clamp(1e-6, 1 - 1e-6)
        stays = functional.binary_cross_entropy(now, old[at])
        apart = (classes[:, one] - classes[:, other])[narrow[at]]
        open_ = -0.5 * (functional.logsigmoid(apart) + functional.logsigmoid(-apart))
        stays = keep * stays + doubt * open_.sum() / BATCH
        change = sum(((p - b) ** 2).sum() for p, b in zip(learned, before, strict=True))
        optimiser.zero_grad()
        (loss + stays + hold * change).backward()
        optimiser.step()
        schedule.step()
    for p in learned:
        p.requires_grad_(False)


def hidden_of(net: NeuropilNet, features: Tensor) -> Tensor:
    """(N, H) what the class layers see of (N, F) features."""
    return functional.relu(functional.linear(features, *net.task_heads.kernel("shared")))


def said(layer: nn.Module, hidden: Tensor) -> Tensor:
    """(N, channels) logits of a pointwise layer."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    return functional.linear(hidden, weight.flatten(1), bias)


def layers_of(net: NeuropilNet) -> dict[str, Tensor]:
    """The parameters of a network's layers of classes and groups, as files name them."""
    heads = tuple(f"task_heads.layers.{name}." for name in (CLASSES, GROUPS))
    return {k: v.detach().clone() for k, v in net.state_dict().items() if k.startswith(heads)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw rows, fit, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--patches", type=int, default=400)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--hold", type=float, default=1e-2)
    args = parser.parse_args(arguments)
    net, settings, hierarchy, _ = load_network(args.weights)
    rows = make_reservoir(
        net, settings, hierarchy, digest_of(args.weights), args.studies, args.patches, args.rows
    )
    fit_classes(net, rows, hierarchy, args.steps, hold=args.hold)
    store(args.weights, {}, layers_of(net))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
