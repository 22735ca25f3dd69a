"""Try a network on a small piece of noise before anyone depends on its answers."""

from __future__ import annotations

import torch

from lib.networks.model import NeuropilNet

SIDE, SECTIONS = 32, 16


@torch.inference_mode()
def fault_of(net: NeuropilNet) -> str:
    """What makes a network useless on any image; "" for one that answers.

    Noise of two strengths is enough to tell numbers that are none, and answers that are the
    same whatever is shown.

    Args:
        net: on the CPU.
    """
    if bad := [n for n, p in net.named_parameters() if not torch.isfinite(p).all()]:
        return f"{bad[0]} holds numbers that are not finite ({len(bad)} of its tensors do)"
    shape = (SIDE, SIDE) if net.spatial_dims == 2 else (SIDE, SIDE, SECTIONS)
    image = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0))
    image[..., : SIDE // 2, :] *= 0.2
    heads = net.eval().heads(net.features(image))
    for name, out in heads.items():
        if not torch.isfinite(out).all():
            return f"its head {name!r} answers with numbers that are not finite"
    semantic = heads["semantic"].flatten(2)
    if float(semantic.std(dim=2).max()) < 1e-6:
        return "it gives the same answer whatever the image shows"
    return ""
