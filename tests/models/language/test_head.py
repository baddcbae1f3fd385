import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.language.config import SIZES
from models.language.head import IGNORE, Head
from models.language.model import Transformer


class LargestTensor(TorchDispatchMode):
    """Records the elements of the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def head_and_input(smoothing=0.0, chunk=64, vocabulary=23):
    weight = nn.Parameter(torch.randn(vocabulary, 8, dtype=torch.float64))
    hidden = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, vocabulary, (3, 7))
    labels[0, :4] = labels[2] = IGNORE
    return Head(weight, smoothing, chunk), hidden, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 64, 10**6])
def test_loss_and_gradients_are_those_of_torch_on_all_logits(smoothing, chunk):
    head, hidden, labels = head_and_input(smoothing, chunk)
    loss = head(hidden, labels, measure=False)
    ours = torch.autograd.grad(loss * 3, (hidden, head.weight))
    plain = F.cross_entropy(
        F.linear(hidden, head.weight).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=smoothing,
    )
    theirs = torch.autograd.grad(plain * 3, (hidden, head.weight))
    # The logits are float64 here, the softmax float32: its rounding is what may differ.
    torch.testing.assert_close(loss.double(), plain, atol=1e-5, rtol=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_batch_without_labels_gives_zero_and_zero_gradients():
    model = Transformer(SIZES["tiny"])
    ids = torch.randint(0, 272, (2, 8))
    loss = model(ids, labels=torch.full_like(ids, IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_logits_of_the_whole_batch_never_exist():
    head, hidden, labels = head_and_input(chunk=2 * 997, vocabulary=997)
    with LargestTensor() as seen:
        head(hidden, labels, measure=False).backward()
        head(hidden, labels, measure=True)
    assert seen.elements == max(2 * 997, head.weight.numel())
    assert seen.elements < 3 * 7 * 997


def test_measuring_gives_the_loss_of_each_token_without_smoothing():
    head, hidden, labels = head_and_input(smoothing=0.3)
    logits = F.linear(hidden, head.weight)
    labels[1, :3] = logits[1, :3].argmax(-1)
    nats, right = head(hidden, labels, measure=True)
    assert right.any() and not right.all()
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = torch.where(labels == IGNORE, 0.0, -picked)
    torch.testing.assert_close(nats.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(right, logits.argmax(-1) == labels)


def test_autocast_gives_the_gradients_of_float32_to_the_precision_of_bfloat16():
    model = Transformer(SIZES["tiny"])
    ids = torch.randint(0, 272, (4, 32))
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(ids, labels=ids)
        assert loss.dtype == torch.float32
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert 0 < difference < 0.02  # bfloat16 keeps 8 bits; measured 0.004
