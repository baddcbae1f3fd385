from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.doc_translation.config import SIZES
from models.doc_translation.decoding import DecoderCache, greedy, texts
from models.doc_translation.model import DocTranslator, layers


def recomputed(model, memory, count, vocabulary):
    """Greedy decoding that computes the whole prefix again for each token."""
    tokens = torch.full((memory.shape[0], 1), vocabulary.start, device=memory.device)
    with torch.no_grad():
        for _ in range(count):
            hidden = model.decoder.bert(
                input_ids=tokens, encoder_hidden_states=memory, use_cache=False
            ).last_hidden_state
            likeliest = model.decoder.cls(hidden[:, -1:]).argmax(-1)
            tokens = torch.cat((tokens, likeliest), dim=1)
    return tokens[:, 1:]


@dataclass
class Pages:
    """A task on cards, a model that ends some translations early, and memories of pages."""

    vocabulary: object
    model: DocTranslator
    memory: torch.Tensor


@pytest.fixture(scope="module")
def pages():
    from models.base import Context
    from models.doc_translation.config import Data, Model
    from models.doc_translation.task import DocTranslationTask

    data = Data(path="embedded:cards")
    task = DocTranslationTask(
        Model(size="tiny", dropout=0.0), data, Context(0, 0.1, None, torch.device("cpu"))
    )
    task.setup()
    torch.manual_seed(0)
    model = task.build().eval()
    batch = task.collate([task.data("val").sample(i, None) for i in range(6)])
    with torch.no_grad():
        # Untrained weights repeat one token on all pages; larger ones give varied texts.
        model.decoder.bert.embeddings.position_embeddings.weight.normal_()
        memory = model(batch["page_global"], batch["page_local"])
        memory = memory + 20 * torch.randn(memory.shape)
    return Pages(task.vocabulary, model, memory)


def test_the_cache_gives_the_tokens_of_recomputation(pages):
    written = greedy(pages.model, pages.memory, 100, pages.vocabulary)
    assert torch.equal(written, recomputed(pages.model, pages.memory, 100, pages.vocabulary))
    assert len(written.unique(dim=0)) == 6 and len(written[0].unique()) > 10


def test_a_page_that_has_ended_changes_no_other_page(pages):
    free = greedy(pages.model, pages.memory, 40, pages.vocabulary)
    end = int(free[0, 3])  # the first page ends at its fourth token at the latest
    vocabulary = SimpleNamespace(start=pages.vocabulary.start, end=end, pad=pages.vocabulary.pad)
    together = greedy(pages.model, pages.memory, 40, vocabulary)
    ends = [row.index(end) if end in row else 40 for row in together.tolist()]
    assert ends[0] < 4 and len(set(ends)) > 1
    for number, length in enumerate(ends):
        alone = greedy(pages.model, pages.memory[number : number + 1], 40, vocabulary)
        assert torch.equal(together[number, :length], alone[0, :length])


def test_tokens_in_parts_give_the_logits_of_the_whole(pages):
    tokens = torch.randint(3, 500, (6, 9), generator=torch.Generator().manual_seed(0))
    cache = DecoderCache()
    with torch.no_grad():
        whole = pages.model(memory=pages.memory, decoder_ids=tokens)
        parts = [
            pages.model(memory=pages.memory, decoder_ids=part, cache=cache)
            for part in (tokens[:, :1], tokens[:, 1:6], tokens[:, 6:])
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_the_cache_saves_at_least_19_of_20_operations_in_full_size():
    size, vocabulary = SIZES["full"], SimpleNamespace(start=1)
    count, flops = 128, []  # the saving grows with the length
    with torch.device("meta"):
        model, memory = DocTranslator(size).eval(), torch.empty(1, size.queries, size.width)
        for decode in (recomputed, greedy):
            with FlopCounterMode(display=False) as counter:
                decode(model, memory, count, vocabulary)
            flops.append(counter.get_total_flops())
    assert flops[0] > 20 * flops[1] > 0


def test_compiled_layers_decode_without_compilation(pages):
    model, graphs = deepcopy(pages.model), []

    def count_graphs(module, _):
        graphs.append(module)
        return module.forward

    for layer in layers(model):
        layer.compile(backend=count_graphs)
    written = greedy(model, pages.memory, 5, pages.vocabulary)
    assert torch.equal(written, greedy(pages.model, pages.memory, 5, pages.vocabulary))
    assert not graphs
    with torch.no_grad():
        model(memory=pages.memory, decoder_ids=written)
    assert graphs


def test_a_text_ends_at_its_first_end_token(pages):
    vocabulary = pages.vocabulary
    row = [*vocabulary.encode("one").tolist(), vocabulary.end, *vocabulary.encode("two").tolist()]
    assert texts(torch.tensor([row]), vocabulary) == ["one"]
