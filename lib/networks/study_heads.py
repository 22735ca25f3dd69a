"""Study heads: a small pointwise network that changes the heads' logits for one study.

    logits = heads(features) + change(features)

The published heads stay as they are underneath; a change of zero is the published network. For
classes, only those that the change is used for get their new probability; the others keep the
odds that they had among each other. A study can have a head that the network has not: whether a
voxel lies between two objects.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.networks.model import NeuropilNet

CLASSES = "semantic"
BOUNDARY = "boundary"
"""A study's own head, or one that was fitted to published weights: log odds that a voxel lies
between two objects, not inside one."""
PIECE = 8192
"""Rows whose hidden layer is held at once: so many stay in a processor's cache."""

M = TypeVar("M", bound=nn.Module)


class StudyHeads(nn.Module):
    """Features and logits -> changed logits, voxel by voxel.

    Args:
        channels: F of the features.
        outputs: head -> its channels, of the heads that change.
        width: of the hidden layer.
        beside: what they see of a voxel beside its features (lib/prediction/filters.py), numbers.
    """

    mean: Tensor
    scale: Tensor
    used: Tensor

    def __init__(
        self, channels: int, outputs: Mapping[str, int], width: int, beside: int = 0
    ) -> None:
        super().__init__()
        self.outputs, self.beside = dict(outputs), beside
        total = sum(self.outputs.values())
        self.inner = nn.Linear(channels + beside, width)
        self.outer = nn.Linear(width, total)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.register_buffer("mean", torch.zeros(channels + beside))
        self.register_buffer("scale", torch.ones(channels + beside))
        self.register_buffer("used", torch.ones(total, dtype=torch.bool))

    def forward(
        self,
        features: Tensor,
        logits: Mapping[str, Tensor],
        only: Collection[str] = (),
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Changed logits.

        Args:
            features: (..., F).
            logits: head -> (..., channels), any of the network's; others pass through.
            only: names of the heads wanted; the study's own are given where they are in it.
            beside: (..., `beside`) where they see anything beside the features.

        Returns:
            the same names and shapes, and the study's own heads.
        """
        out = dict(logits)
        own = BOUNDARY in self.outputs and BOUNDARY in only
        if not own and not any(name in out for name in self.outputs):
            return out
        kind = features.device.type
        with torch.autocast(kind, enabled=False):
            parts = torch.split(self.change(features, beside), list(self.outputs.values()), -1)
            uses = torch.split(self.used, list(self.outputs.values()))
            for (name, _), part, use in zip(self.outputs.items(), parts, uses, strict=True):
                if name == BOUNDARY and own:
                    out[name] = part
                elif name in out and bool(use.any()):
                    old = out[name].to(part.dtype)
                    out[name] = mixed(name, old, old + part, use).to(out[name].dtype)
        return out

    def used_of(self, name: str) -> Tensor:
        """(channels,) bool, which channels of a head are changed; none where the head is not."""
        uses = torch.split(self.used, list(self.outputs.values()))
        found = dict(zip(self.outputs, uses, strict=True)).get(name)
        return self.used[:0] if found is None else found

    def alike(self) -> StudyHeads:
        """New heads of the same shape, which change nothing yet."""
        channels, width = self.inner.in_features - self.beside, self.inner.out_features
        return StudyHeads(channels, self.outputs, width, self.beside)

    def change(self, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """(..., F) -> (..., outputs): what is added to the logits, of all outputs in a row."""
        assert (beside is None) == (self.beside == 0), "filter responses come with the features"
        weight = self.inner.weight / self.scale  # features need no standardising of their own
        bias = self.inner.bias - weight @ self.mean
        seen = [features] if beside is None else [features, beside]
        pieces = [torch.split(s.reshape(-1, s.shape[-1]), PIECE) for s in seen]
        parts = []
        for rows in zip(*pieces, strict=True):
            whole = torch.cat([r.to(weight.dtype) for r in rows], -1)
            parts.append(self.outer(functional.linear(whole, weight, bias).relu_()))
        return torch.cat(parts).view(*features.shape[:-1], self.outer.out_features)


def mixed(name: str, old: Tensor, new: Tensor, used: Tensor) -> Tensor:
    """The new logits of the channels that are used; the others share what is left as before.

    Args:
        name: of the head; the channels of "semantic" share one probability of 1.
        old, new: (..., channels) logits.
        used: (channels,) bool.

    Returns:
        (..., channels) logits.
    """
    if name != CLASSES or bool(used.all()) or not bool(used.any()):
        return torch.where(used, new, old)
    of_rest = torch.where(used, -torch.inf, 0.0).to(old.dtype)
    whole = new.logsumexp(-1, keepdim=True)
    left, before = ((x + of_rest).logsumexp(-1, keepdim=True) for x in (new, old))
    return torch.where(used, new - whole, old + (left - before - whole))


def together(one: StudyHeads, other: StudyHeads) -> StudyHeads:
    """Study heads that say what both say; their outputs have no name in common."""
    parts = (one, other)
    outputs = {**one.outputs, **other.outputs}
    assert len(outputs) == len(one.outputs) + len(other.outputs)
    beside = max(p.beside for p in parts)
    width = sum(p.inner.out_features for p in parts)
    made = StudyHeads(one.inner.in_features - one.beside, outputs, width, beside)
    with torch.no_grad():
        weights = [p.inner.weight / p.scale for p in parts]
        wide = [
            functional.pad(w, (0, beside - p.beside)) for p, w in zip(parts, weights, strict=True)
        ]
        made.inner.weight.copy_(torch.cat(wide))
        biases = [p.inner.bias - w @ p.mean for p, w in zip(parts, weights, strict=True)]
        made.inner.bias.copy_(torch.cat(biases))
        made.outer.weight.zero_()
        rows, columns = one.outer.weight.shape
        made.outer.weight[:rows, :columns] = one.outer.weight
        made.outer.weight[rows:, columns:] = other.outer.weight
        made.outer.bias.copy_(torch.cat([p.outer.bias for p in parts]))
        made.used.copy_(torch.cat([p.used for p in parts]))
    return made.requires_grad_(False).eval()


def to_plain(heads: StudyHeads) -> dict[str, Any]:
    """Plain values, as weights files keep the boundary head that was fitted to them."""
    state = {name: values.tolist() for name, values in heads.state_dict().items()}
    return {"outputs": dict(heads.outputs), "beside": heads.beside, "state": state}


def from_plain(data: Mapping[str, Any]) -> StudyHeads:
    """The heads of `to_plain`, without gradients."""
    state = {name: torch.as_tensor(values) for name, values in data["state"].items()}
    width, channels = state["inner.weight"].shape
    beside = int(data.get("beside", 0))
    made = StudyHeads(channels - beside, data["outputs"], width, beside)
    made.load_state_dict(state)
    return made.requires_grad_(False).eval()


def with_study_heads(net: NeuropilNet, study: StudyHeads | None) -> NeuropilNet:
    """The same network with other study heads; parameters are shared, `net` is not changed."""
    heads = _shallow(net.task_heads)
    heads._modules["study"] = study
    changed = _shallow(net)
    changed._modules["task_heads"] = heads
    return changed


def _shallow(module: M) -> M:
    """A module with the same children that can be replaced without touching the first."""
    made = copy.copy(module)
    made.__dict__["_modules"] = dict(module._modules)
    return made
