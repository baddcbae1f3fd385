"""Attention by the boundaries of documents equals attention with a mask.

On a CPU, torch has no kernel for documents of unequal lengths; the fixture adds a plain one, which
takes one document after the other. What is around the kernel is real.
"""

from itertools import pairwise

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from gearshift.engines.base import Options
from gearshift.engines.preparation import change_forward
from gearshift.models.common.layers import _has_variable_lengths
from gearshift.models.language.config import SIZES
from gearshift.models.language.model import (
    Block,
    Transformer,
    causal_attention,
    document_mask,
    rotary,
)
from tests.models.tasks import Operators

pytestmark = pytest.mark.skipif(
    not _has_variable_lengths(), reason="torch before 2.11 has no attention by boundaries"
)

BATCH, TIME = 3, 16
STARTS = {
    "several documents in a row": [0, 5, 6, 16, 32, 47],
    "one document in each row": [0, 16, 32],
    "a document for each token": list(range(48)),
}


def document_by_document(boundaries, of_one, *tensors):
    """`of_one` of the parts [heads, time, width] of each document; [tokens, heads, width]."""
    parts = [
        of_one(*(x[start:end].transpose(0, 1) for x in tensors))
        for start, end in pairwise(boundaries.tolist())
    ]
    return [torch.cat([x.transpose(0, 1) for x in same]) for same in zip(*parts, strict=True)]


def probabilities(q, k):
    later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def attention(q, k, v):
    return (probabilities(q, k) @ v,)


def attention_backward(gradient, q, k, v):
    p, of_p = probabilities(q, k), gradient @ v.transpose(1, 2)
    of_scores = p * (of_p - (of_p * p).sum(-1, keepdim=True)) / q.shape[-1] ** 0.5
    return of_scores @ k, of_scores.transpose(1, 2) @ q, p.transpose(1, 2) @ gradient


@pytest.fixture(autouse=True, scope="module")
def kernels_of_the_cpu():
    from torch.nn.attention import varlen

    forward, backward = varlen._varlen_attn, varlen._varlen_attn_backward

    @forward.register_kernel("cpu")
    def _(q, k, v, starts, ends, max_q, max_k, is_causal, *rest):
        assert is_causal and starts is ends and starts.dtype == torch.int32
        assert max(starts.diff()) <= max_q == max_k
        (out,) = document_by_document(starts, attention, q, k, v)
        return out, q.new_zeros(q.shape[1], len(q)), torch.zeros(2, dtype=torch.uint64)

    @backward.register_kernel("cpu")
    def _(gradient, q, k, v, out, lse, starts, *rest):
        return tuple(document_by_document(starts, attention_backward, gradient, q, k, v))


@pytest.fixture(params=STARTS)
def boundaries(request):
    return torch.tensor([*STARTS[request.param], BATCH * TIME], dtype=torch.int32)


def output_and_gradients(run, *inputs):
    out = run(*inputs)
    return [out, *torch.autograd.grad((out * torch.arange(out.shape[-1])).sum(), inputs)]


def assert_equal(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_outputs_and_gradients_equal_those_with_a_mask(boundaries):
    given = [torch.randn(BATCH, TIME, 2, 8, requires_grad=True) for _ in range(3)]
    mask = document_mask(boundaries, BATCH, TIME)
    ours, theirs = (
        output_and_gradients(lambda *qkv, d=d: causal_attention(*qkv, d, "auto"), *given)
        for d in (boundaries, mask)
    )
    assert_equal(ours, theirs)


def block_and_input():
    torch.manual_seed(0)
    size = SIZES["tiny"]
    block = Block(size, "auto")
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    cosine, sine = rotary(TIME, size.width // size.heads, 10_000.0, torch.device("cpu"))
    x = torch.randn(BATCH, TIME, size.width, requires_grad=True)
    return block, x, cosine, sine


def test_boundaries_and_recomputation_change_nothing(boundaries):
    block, x, cosine, sine = block_and_input()
    mask = document_mask(boundaries, BATCH, TIME)
    theirs = output_and_gradients(lambda x: block(x, cosine, sine, mask), x)
    ours = output_and_gradients(lambda x: block(x, cosine, sine, boundaries), x)
    recomputed = output_and_gradients(
        lambda x: checkpoint(block, x, cosine, sine, boundaries, use_reentrant=False), x
    )
    assert_equal(ours, theirs, atol=1e-4, rtol=1e-4)
    assert_equal(recomputed, ours)


@pytest.mark.parametrize(("keeps", "again"), [(False, 1), (True, 0)])
def test_selective_checkpointing_keeps_the_result(keeps, again):
    block, x, cosine, sine = block_and_input()
    boundaries = torch.tensor([*STARTS["several documents in a row"], 48], dtype=torch.int32)
    expected = output_and_gradients(lambda x: block(x, cosine, sine, boundaries), x)
    options = Options(activation_checkpointing=1, keep_products=keeps)
    change_forward(block, [block], options, torch.device("cpu"))
    out = block(x, cosine, sine, boundaries)
    with Operators() as called:
        (gradient,) = torch.autograd.grad((out * torch.arange(out.shape[-1])).sum(), [x])
    assert called.names.count("torch_attn._varlen_attn.default") == again
    assert_equal([out, gradient], expected)


@pytest.mark.gpu
@pytest.mark.parametrize("documents", [5, 200])
def test_on_a_gpu_the_kernel_equals_the_mask_without_waiting_for_the_gpu(documents):
    size, batch, time = SIZES["124M"], 4, 1024
    cuts = torch.randperm(batch * time)[:documents].tolist()
    starts = sorted({*cuts, *range(0, batch * time, time)})
    boundaries = torch.tensor([*starts, batch * time], dtype=torch.int32, device="cuda")
    ids = torch.randint(0, size.vocabulary, (batch, time), device="cuda")
    results = {}
    for kernel in ("auto", "math"):
        torch.manual_seed(0)
        model = Transformer(size, kernel=kernel).cuda()
        with Operators() as called, torch.autocast("cuda", torch.bfloat16):
            model(ids, labels=ids, boundaries=boundaries).backward()  # loads the kernels
        assert any("_varlen_attn" in name for name in called.names) is (kernel == "auto")
        model.zero_grad()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(ids, labels=ids, boundaries=boundaries)
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results[kernel] = loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
    (loss, ours), (expected, theirs) = results["auto"], results["math"]
    assert loss == pytest.approx(expected, rel=1e-3)
    assert (ours - theirs).norm() / theirs.norm() < 0.02  # bfloat16 keeps 8 bits
