import pytest
import torch

from models.doc_translation.metric import Bleu, TranslationMetric, steds
from models.doc_translation.model import greedy, texts


class Counted(torch.nn.Module):
    """A model that counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.inner(*args, **kwargs)


@pytest.fixture(scope="module")
def cards():
    """A task on cards, and an untrained model of it."""
    from models.base import Context
    from models.doc_translation.config import Data, Model
    from models.doc_translation.task import DocTranslationTask

    task = DocTranslationTask(
        Model(size="tiny", dropout=0.0),
        Data(path="embedded:cards", max_new_tokens=5, control="noise"),
        Context(0, 0.1, None, torch.device("cpu")),
    )
    task.setup()
    torch.manual_seed(0)
    return task, task.build().eval()


def test_each_token_is_the_likeliest_one_after_those_before(cards, batch_of):
    task, model = cards
    batch, vocabulary = batch_of(task, 3), task.vocabulary
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
        written = greedy(model, memory, 70, vocabulary)
        start = torch.full((3, 1), vocabulary.start)
        logits = model(memory=memory, decoder_ids=torch.cat((start, written[:, :-1]), dim=1))
    assert written.shape == (3, 70)
    assert torch.equal(logits.argmax(-1), written)


@pytest.mark.parametrize(("against_blank", "calls"), [(False, 2 + 5), (True, 3 + 10)])
def test_the_number_of_calls_does_not_depend_on_what_is_written(
    cards, batch_of, against_blank, calls
):
    task, model = cards
    metric = TranslationMetric(task.vocabulary, "13a", 5, against_blank)
    for count in (1, 4):
        counted = Counted(model)
        metric.update(counted, batch_of(task, count, "val"))
        assert counted.calls == calls


def test_counts_of_parts_add_up_to_those_of_the_whole(cards):
    task, model = cards
    metric, samples = task.metric(), [task.data("val").sample(i, None) for i in range(7)]
    whole = metric.update(model, task.collate(samples))
    parts = [metric.update(model, task.collate(samples[a:b])) for a, b in ((0, 3), (3, 7))]
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole, parts[0] + parts[1], rtol=1e-6, atol=0)


def test_the_scores_are_those_of_the_texts_that_the_model_writes(cards, batch_of):
    task, model = cards
    metric, batch = task.metric(), batch_of(task, 4, "val")
    found = metric.result(metric.update(model, batch))
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
    written = texts(greedy(model, memory, 5, task.vocabulary), task.vocabulary)
    bleu, references = Bleu("13a"), batch["references"]
    assert found["val_bleu"] == pytest.approx(bleu.score(bleu.counts(written, references)))
    pairs = zip(written, references, strict=True)
    assert found["val_steds"] == pytest.approx(sum(steds(a, b) for a, b in pairs) / 4)
    assert found["val_loss"] == pytest.approx(float(loss) / batch["units"])
    assert set(found) == {"val_bleu", "val_bleu_pt", "val_steds", "val_loss", "val_bleu_gain"}


def test_only_a_noise_control_is_measured_against_blank_pages(make_task, batch_of):
    task = make_task(max_new_tokens=2)
    task.setup()
    metric = task.metric()
    assert "val_bleu_gain" not in metric.result(metric.update(task.build(), batch_of(task, 2)))
