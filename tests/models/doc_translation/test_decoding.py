from types import SimpleNamespace

import pytest
import torch

from gearshift.models.doc_translation.decoding import beam_search


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


@pytest.fixture(scope="module")
def pages(cards):
    """A vocabulary, a model that ends some translations early, and memories of pages."""
    torch.manual_seed(0)
    model = cards.build().eval()
    batch = cards.collate([cards.data("val").sample(i, None) for i in range(6)])
    with torch.no_grad():
        # Untrained weights repeat one token on all pages; larger ones give varied texts.
        model.decoder.bert.embeddings.position_embeddings.weight.normal_()
        memory = model(batch["page_global"], batch["page_local"])
        memory = memory + 20 * torch.randn(memory.shape)
    return SimpleNamespace(vocabulary=cards.vocabulary, model=model, memory=memory)


@pytest.fixture(scope="module")
def ending(pages):
    """A vocabulary whose end is the fourth token of the first page at the latest."""
    end = int(beam_search(pages.model, pages.memory, 40, pages.vocabulary)[0, 3])
    return SimpleNamespace(start=pages.vocabulary.start, end=end, pad=pages.vocabulary.pad)


def test_the_cache_gives_the_tokens_of_recomputation(pages):
    written = beam_search(pages.model, pages.memory, 100, pages.vocabulary)
    assert torch.equal(written, recomputed(pages.model, pages.memory, 100, pages.vocabulary))
    assert len(written.unique(dim=0)) == 6 and len(written[0].unique()) > 10


def searched(model, memory, count, vocabulary, beams):
    """Tokens of a beam search for one page that computes each hypothesis by itself."""
    running, finished = [([], 0.0)], []
    for _ in range(count):
        if len(finished) >= beams:
            break
        candidates = []
        for tokens, total in running:
            ids = torch.tensor([[vocabulary.start, *tokens]])
            with torch.no_grad():
                logits = model(memory=memory, decoder_ids=ids)[0, -1]
            found = logits.log_softmax(-1).tolist()
            candidates += [([*tokens, token], total + value) for token, value in enumerate(found)]
        candidates.sort(key=lambda candidate: -candidate[1])
        ends = [c for c in candidates[:beams] if c[0][-1] == vocabulary.end]
        finished += [(total / len(tokens), tokens) for tokens, total in ends]
        running = [c for c in candidates if c[0][-1] != vocabulary.end][:beams]
    if len(finished) < beams:
        finished.append((running[0][1] / count, running[0][0]))
    return max(finished)[1]


def until_end(tokens, end):
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def test_a_batch_with_cache_finds_what_a_search_page_by_page_finds(pages, ending):
    greedy, together = (
        [until_end(row, ending.end) for row in found.tolist()]
        for found in (beam_search(pages.model, pages.memory, 12, ending, n) for n in (1, 3))
    )
    apart = [searched(pages.model, row, 12, ending, 3) for row in pages.memory.split(1)]
    assert together == apart != greedy


class Counted(torch.nn.Module):
    """A model that counts its calls."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, *args, **inputs):
        self.calls += 1
        return self.model(*args, **inputs)


def test_an_early_stop_gives_the_same_translation_with_fewer_calls(pages, ending):
    calls, beams = [], 3
    for memory in pages.memory.split(1):
        model = Counted(pages.model)
        early = beam_search(model, memory, 40, ending, beams, stops_early=True).tolist()[0]
        whole = beam_search(pages.model, memory, 40, ending, beams).tolist()[0]
        assert until_end(early, ending.end) == until_end(whole, ending.end)
        calls.append(model.calls)
    assert min(calls) < 40
    model = Counted(pages.model)
    beam_search(model, pages.memory, 40, ending, beams, stops_early=True)
    assert model.calls == max(calls)


class Chain(torch.nn.Module):
    """A decoder whose next token depends on the last one alone, by a table of probabilities."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table).log()  # [last token, next token]

    def forward(self, memory, decoder_ids, cache):
        cache.state = SimpleNamespace(reorder_cache=lambda rows: None)
        return self.table[decoder_ids]


def test_a_text_that_does_not_end_in_time_competes_with_finished_ones():
    start, end, word = range(3)
    chain = Chain([[0.0, 0.1, 0.9], [0.0, 1.0, 0.0], [0.0, 0.1, 0.9]])
    vocabulary, page = SimpleNamespace(start=start, end=end, pad=0), torch.zeros(1, 1, 1)
    assert beam_search(chain, page, 2, vocabulary, 3)[0].tolist() == [word, word]
    # Two finished texts end the search, and one does not.
    for early in (False, True):
        found = beam_search(chain, page, 3, vocabulary, 2, stops_early=early)[0].tolist()
        assert until_end(found, end) == [word, end]
