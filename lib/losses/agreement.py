"""Agreement: all voxels of one cell have one cell class, whichever it is.

Where objects are known and their classes are not, as in most dense volumes, nothing else asks of
the class map that it looks like tissue. The term is the Jensen-Shannon divergence of the class
distributions of an object's voxels: what is lost when each is replaced by their mean. Classes
that lie inside others (a mitochondrion of the cell) do not count: distributions are over the
other classes, and a voxel weighs as much as it is one of them.

Source: Lin 1991, "Divergence measures based on the Shannon entropy" (generalised to weights).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.targets.prepare import Targets
from lib.targets.processes import process_count, sum_over_processes

LEAST_MASS = 1e-6


def agreement_term(logits: Tensor, targets: Targets) -> Tensor:
    """Mean over objects of the divergence of their voxels' class distributions.

    Args:
        logits: (B, C, *S) float32 or float64, of the fine classes.
        targets: of the batch; objects known to be of a class that lies inside others are left
            out.

    Returns:
        Scalar in [0, log C]; 0 without objects. Voxels of no object get no gradient.
    """
    objects = targets.objects
    classes = targets.hierarchy.classes
    cell = [i for i, c in enumerate(classes) if not c.inside]
    inside = torch.tensor([c.inside for c in classes] + [False], device=logits.device)
    wanted = ~inside[targets.object_class]  # class -1, unknown, is the last
    count = sum_over_processes(wanted.sum())
    labels = objects.labels.flatten()
    used = torch.cat([wanted.new_zeros(1), wanted])[labels].nonzero().flatten()
    if used.numel() == 0:
        return logits.flatten()[:0].sum()
    rows = logits.flatten(2).transpose(1, 2).reshape(-1, logits.shape[1])[used]
    mass = rows.detach().softmax(1)[:, cell].sum(1)
    own = rows[:, cell].log_softmax(1)
    index = labels[used] - 1
    total = mass.new_zeros(objects.count).index_add(0, index, mass).clamp_min(LEAST_MASS)
    share = mass / total[index]
    pooled = own.new_zeros((objects.count, len(cell)))
    pooled = pooled.index_add(0, index, share.unsqueeze(1) * own.exp())
    divergence = (own.exp() * (own - pooled.clamp_min(LEAST_MASS).log()[index])).sum(1)
    return (share * divergence).sum() * process_count() / count
