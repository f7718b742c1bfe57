from __future__ import annotations

import torch
from torch import nn

from dicetalk.models.cost import CostMeter

KIB = 1024


def test_views_cost_nothing_and_freed_tensors_are_gone():
    with CostMeter() as memory:
        first = torch.zeros(2 * KIB // 4)
        assert memory.peak_bytes == 2 * KIB
        view = first.reshape(2, -1)[0]
        view.add_(1)
        assert memory.peak_bytes == 2 * KIB
        second = first + 1
        assert memory.peak_bytes == 4 * KIB
        del first, view
        third = second * 2
        assert third.shape == second.shape and memory.peak_bytes == 4 * KIB


def test_a_chain_of_layers_keeps_what_its_backward_pass_needs():
    layers = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(4)))
    rows = torch.zeros(1000, 256)
    activation, weight = 1000 * 256 * 4, 256 * 256 * 4
    with CostMeter() as memory, memory.watch_gradients(layers):
        output = layers(rows)
        assert memory.peak_bytes == 4 * activation
        output.backward(torch.ones_like(output))
    # Output, its gradient and one more are alive with the outputs of the three layers below
    assert 5 * activation <= memory.peak_other_bytes <= 6 * activation + 2 * weight
    assert memory.peak_other_bytes <= memory.peak_bytes <= memory.peak_other_bytes + 4 * weight


def test_attention_counts_both_products_and_backward_five():
    query, key = torch.randn(2, 3, 16, 8, requires_grad=True), torch.randn(2, 3, 32, 8)
    product = 2 * 2 * 3 * 16 * 32 * 8
    with CostMeter() as meter:
        output = nn.functional.scaled_dot_product_attention(query, key, key)
        assert meter.flops == 2 * product
        output.sum().backward()
    assert meter.flops == 7 * product
