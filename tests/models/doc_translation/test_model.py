import pytest
import torch

from gearshift.models.doc_translation.config import SIZES
from gearshift.models.doc_translation.model import IGNORE, DocTranslator

COUNTS = {
    # global, local, expand, both query transformers, queries, gate and projection, decoder
    "tiny": (117_632, 25_116, 2_080, 92_544, 1_024, 4_289, 96_192),
    "full": (85_808_640, 74_120_824, 787_456, 7_359_488, 262_144, 263_681, 40_339_744),
}
TINY = SIZES["tiny"]


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def views(batch=2):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 3, 64, 64, generator=generator),
        torch.randn(batch, 3, 96, 64, generator=generator),
    )


def tokens(batch=2, time=6):
    return torch.randint(3, 500, (batch, time), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return DocTranslator(TINY)


@pytest.mark.parametrize("name", SIZES)
def test_each_block_has_the_specified_parameters(name):
    with torch.device("meta"):
        model = DocTranslator(SIZES[name])
    found = (
        count(model.global_encoder),
        count(model.local_encoder),
        count(model.expand),
        count(model.global_gather, model.local_gather),
        model.queries.numel(),
        count(model.gate, model.project),
        count(model.decoder),
    )
    assert found == COUNTS[name]
    assert count(model) == sum(found) == SIZES[name].parameters


def test_a_memory_gives_the_loss_and_logits_that_its_pages_give(tiny):
    ids = tokens()
    with torch.no_grad():
        memory = tiny(*views())
        assert memory.shape == (2, 8, 64)
        ours = tiny(memory=memory, decoder_ids=ids)
        assert torch.equal(ours, tiny(*views(), decoder_ids=ids))
        nats = torch.nn.functional.cross_entropy(ours.flatten(0, 1), ids.flatten(), reduction="sum")
        torch.testing.assert_close(nats, tiny(memory=memory, decoder_ids=ids, labels=ids))


@pytest.mark.parametrize(("bias", "seen"), [(-100.0, 0), (100.0, 1)])
def test_the_gate_mixes_the_global_and_the_local_view(bias, seen):
    torch.manual_seed(0)
    model = DocTranslator(TINY)
    given = views()
    with torch.no_grad():
        model.gate.bias.fill_(bias)
        memory = model(*given)
        for number in (0, 1):
            changed = [x.flip(0) if i == number else x for i, x in enumerate(given)]
            assert torch.allclose(memory, model(*changed), atol=1e-6) == (number != seen)


def test_a_token_sees_no_later_one(tiny):
    ids, later = tokens(), tokens()
    later[:, 4:] = 7
    with torch.no_grad():
        memory = tiny(*views())
        first, other = (tiny(memory=memory, decoder_ids=x) for x in (ids, later))
    torch.testing.assert_close(first[:, :4], other[:, :4])
    assert not torch.allclose(first[:, 4:], other[:, 4:])


def test_the_loss_in_chunks_is_the_loss_at_once(tiny):
    ids = tokens()
    labels = ids.clone()
    labels[0, 3:] = IGNORE
    losses, gradients = [], []
    for rows in (1000, 5):
        tiny.zero_grad()
        tiny.rows, original = rows, tiny.rows
        loss = tiny(*views(), decoder_ids=ids, labels=labels)
        loss.backward()
        tiny.rows = original
        losses.append(loss.detach())
        gradients.append(tiny.queries.grad.clone())
    tiny.zero_grad()
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_queries_differ_from_the_start_and_stay_different():
    torch.manual_seed(0)
    model = DocTranslator(TINY)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = tokens()
    model(*views(), decoder_ids=ids, labels=ids).backward()
    optimizer.step()
    for queries in model.queries.detach():
        assert torch.linalg.matrix_rank(queries) == len(queries)
