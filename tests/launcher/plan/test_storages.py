"""Lives of storages: counted once, freed, labeled, resized; moments; operations."""

import pytest
import torch
from torch import nn

from gearshift.launcher.plan.storages import Kind, Phase, Storages


def held(storages):
    """What is held after the last change, without what is 0."""
    return {kind: n for kind, n in zip(Kind, storages.moments().held[-1], strict=True) if n}


@pytest.mark.parametrize("is_fake", [False, True])
def test_storages_count_until_they_are_freed_and_views_do_not(is_fake):
    storages = Storages(is_fake)
    with storages.computing():
        first = torch.zeros(100)
        view = first[10:].view(9, 10)
        assert held(storages) == {Kind.TEMPORARIES: 400}
        second = first + 1
        assert held(storages) == {Kind.TEMPORARIES: 800}
        del first
        assert held(storages) == {Kind.TEMPORARIES: 800}
        del view, second
        assert held(storages) == {}


def test_a_label_changes_the_kind_from_then_on():
    storages = Storages()
    with storages:
        weight = torch.zeros(10)
    storages.label([weight], Kind.WEIGHTS)
    storages.label([weight], Kind.WEIGHTS)
    assert held(storages) == {Kind.WEIGHTS: 40}
    assert peak(storages) == 40


def test_what_outlives_a_phase_was_of_a_kind_from_the_start():
    storages = Storages()
    with storages, storages.during(Phase.FORWARD):
        kept = torch.zeros(10)
        torch.zeros(20)
    storages.keep(Phase.FORWARD, Kind.ACTIVATIONS)
    moments = storages.moments()
    assert moments.phase.tolist() == [Phase.FORWARD] * 4
    assert moments.held[2, [Kind.ACTIVATIONS, Kind.TEMPORARIES]].tolist() == [40, 80]
    assert held(storages) == {Kind.ACTIVATIONS: 40}
    assert kept.numel() == 10


def test_resized_storages_count_with_their_new_size():
    storages = Storages()
    with storages, storages.resizes():
        gathered = torch.zeros(10)
        gathered.untyped_storage().resize_(0)
        assert held(storages) == {}
        gathered.untyped_storage().resize_(80)
        assert held(storages) == {Kind.COMMUNICATION: 80}
    assert torch.UntypedStorage.resize_.__name__ == "resize_"


def test_operations_of_products_and_attention_with_their_backward_pass():
    storages = Storages()
    layer, x = nn.Linear(8, 16), torch.zeros(4, 8, requires_grad=True)
    with storages:
        layer(x).sum().backward()
    assert storages.flops == 3 * 2 * 4 * 8 * 16
    q = torch.zeros(2, 4, 32, 8, requires_grad=True)
    storages = Storages()
    with storages:
        nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    product = 2 * 2 * 4 * 32 * 32 * 8
    assert storages.flops == 2 * product + 5 * product  # the backward pass computes QK' again


def peak(storages):
    return storages.moments().held.sum(1).max()
