"""Small heads of one shape that learn together: they cost less in the arithmetic than in calls."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from lib.networks.study_heads import StudyHeads


class Stack:
    """Models evaluated in the same matrix products; every tensor has their number first.

    Args:
        features: (N, F), by whose mean and spread the models standardise what they see.
        outputs: head -> its channels.
        count: of models; they start alike.
        width: of the hidden layer.
        seed: of the start.
        beside: how many of the features are no features of the network; they come last.
    """

    def __init__(
        self,
        features: Tensor,
        outputs: Mapping[str, int],
        count: int,
        width: int,
        seed: int,
        beside: int = 0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._template = StudyHeads(features.shape[1] - beside, outputs, width, beside)
        self._template.mean = features.mean(0)
        self._template.scale = features.std(0, correction=0) + 1e-3
        self.parameters = [
            p.detach().expand(count, *p.shape).clone().requires_grad_()
            for p in self._template.parameters()
        ]

    def standard(self, features: Tensor) -> Tensor:
        """(..., F) features as the models take them."""
        return (features - self._template.mean) / self._template.scale

    def __call__(self, standard: Tensor) -> Tensor:
        """(M, n, F) standardised features -> (M, n, outputs), of all outputs in a row.

        (n, F) features are those of all models.
        """
        standard = standard.expand(len(self.parameters[0]), *standard.shape[-2:])
        inner, inner_bias, outer, outer_bias = self.parameters
        hidden = torch.baddbmm(inner_bias[:, None], standard, inner.transpose(1, 2))
        return torch.baddbmm(outer_bias[:, None], functional.relu(hidden), outer.transpose(1, 2))

    def modules(self) -> list[StudyHeads]:
        """One module for each model, without gradients."""
        template, made = self._template, []
        for number in range(len(self.parameters[0])):
            module = template.alike()
            module.mean, module.scale = template.mean, template.scale
            for own, stacked in zip(module.parameters(), self.parameters, strict=True):
                own.data.copy_(stacked[number].detach())
            made.append(module.requires_grad_(False).eval())
        return made
