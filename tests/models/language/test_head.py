import weakref

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gearshift.models.language.config import SIZES
from gearshift.models.language.model import (
    CHUNK,
    IGNORE,
    Head,
    Transformer,
    _chunk_loss,
    _ChunkedLoss,
)


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations gave, beside those of `given`, and their peak."""

    def __init__(self, *given):
        super().__init__()
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in given)
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _add(self, storage):
        self.known.add(storage)
        self.live += storage.nbytes()
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size):
        self.live -= size


def head_and_input(chunk=64, vocabulary=23):
    weight = nn.Parameter(torch.randn(vocabulary, 8, dtype=torch.float64))
    hidden = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, vocabulary, (3, 7))
    labels[0, :4] = labels[2] = IGNORE
    return Head(weight, chunk), hidden, labels


@pytest.mark.parametrize("chunk", [1, 64, 10**6])
def test_loss_and_gradients_are_those_of_torch_on_all_logits(chunk):
    head, hidden, labels = head_and_input(chunk)
    loss = head(hidden, labels, measure=False)
    ours = torch.autograd.grad(loss * 3, (hidden, head.weight))
    plain = F.cross_entropy(
        F.linear(hidden, head.weight).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
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


def peak_bytes(tokens, vocabulary, width, dtype, chunk):
    """Peak of loss and gradients, beyond the hidden states and the weight."""
    weight = torch.zeros(vocabulary, width, requires_grad=True)
    hidden = torch.zeros(tokens, width, requires_grad=True)
    labels = torch.zeros(tokens, dtype=torch.int64)
    with PeakBytes(hidden, weight, labels) as memory:
        loss = _ChunkedLoss.apply(hidden, weight, labels, dtype, chunk // vocabulary, _chunk_loss)
        torch.autograd.grad(loss, (hidden, weight))
    return memory.peak


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_16k_tokens_and_32k_vocabulary_take_less_than_a_gibibyte(dtype):
    with FakeTensorMode():  # sizes without values
        peak = peak_bytes(2**14, 2**15, SIZES["1.3B"].width, dtype, CHUNK)
    if dtype == torch.bfloat16:
        peak -= CHUNK * 4  # log_softmax copies its input to float32 on a CPU, but not on a GPU
    assert peak < 2**30, peak / 2**30  # all logits take 2 GiB in float32


def test_measuring_gives_the_loss_of_each_token():
    head, hidden, labels = head_and_input()
    logits = F.linear(hidden, head.weight)
    labels[1, :3] = logits[1, :3].argmax(-1)
    nats, right = head(hidden, labels, measure=True)
    assert right.any() and not right.all()
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = torch.where(labels == IGNORE, 0.0, -picked)
    torch.testing.assert_close(nats.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(right, logits.argmax(-1) == labels)


@pytest.mark.gpu
def test_on_a_gpu_loss_gradients_and_memory_are_as_stated():
    tokens, vocabulary, width = 2**14, 2**15, SIZES["1.3B"].width
    torch.manual_seed(0)
    head = Head(nn.Parameter(torch.randn(vocabulary, width, device="cuda") * 0.02))
    hidden = torch.randn(1, tokens, width, device="cuda", requires_grad=True)
    labels = torch.randint(0, vocabulary, (1, tokens), device="cuda")
    labels[0, ::7] = IGNORE
    with torch.autocast("cuda", torch.bfloat16):
        head(hidden[:, :128], labels[:, :128]).backward()  # loads the kernels
    head.weight.grad = hidden.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        loss = head(hidden, labels)
    ours = torch.autograd.grad(loss, (hidden, head.weight))
    assert torch.cuda.max_memory_allocated() - before < 2**30
    plain = F.cross_entropy(F.linear(hidden[0], head.weight), labels[0], reduction="sum")
    theirs = torch.autograd.grad(plain, (hidden, head.weight))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-3)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() / b.norm() < 0.01  # bfloat16 keeps 8 bits
