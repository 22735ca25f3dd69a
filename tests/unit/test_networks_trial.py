"""Weights that answer nothing of use are told before they answer anybody."""

from __future__ import annotations

import math

import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from lib.networks.model import NeuropilNet, build_network
from lib.networks.trial import fault_of


def network(dims: int = 3) -> NeuropilNet:
    torch.manual_seed(0)
    settings = tiny_settings(model__spatial_dims=dims)
    return build_network(settings.model, settings.loss, HIERARCHY)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_that_answers_has_no_fault(dims):
    assert fault_of(network(dims)) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_none(value):
    net = network()
    name, parameter = list(net.named_parameters())[-1]
    parameter.data.view(-1)[0] = value
    assert fault_of(net) == f"{name} holds numbers that are not finite (1 of its tensors do)"


def test_answers_that_overflow_though_every_weight_is_finite():
    net = network()
    net.task_heads.layers["semantic"].weight.data.fill_(3e38)
    assert "its head 'semantic' answers with numbers that are not finite" in fault_of(net)


def test_the_same_answer_to_everything():
    net = network()
    net.task_heads.layers["semantic"].weight.data.zero_()
    assert fault_of(net) == "it gives the same answer whatever the image shows"
    for parameter in net.parameters():
        parameter.data.zero_()
    assert fault_of(net) == "it gives the same answer whatever the image shows"
