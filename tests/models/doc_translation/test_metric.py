import pytest
import sacrebleu
import torch

from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.metric import (
    SIZE,
    Bleu,
    TranslationMetric,
    plain_text,
    steds,
    tree,
)
from models.doc_translation.readers.page import bleu_tokenizer
from tests.models.doc_translation.test_decoding import Counted


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


@pytest.mark.parametrize(("against_blank", "calls"), [(False, 2 + 5), (True, 3 + 10)])
def test_the_number_of_calls_is_independent_of_the_text(cards, batch_of, against_blank, calls):
    task, model = cards
    metric = TranslationMetric(task.vocabulary, "13a", 5, against_blank)
    for count in (1, 4):
        counted = Counted(model)
        metric.update(counted, batch_of(task, count, "val"))
        assert counted.calls == calls


def test_the_scores_are_those_of_generated_texts(cards, batch_of):
    task, model = cards
    metric, batch = task.metric(), batch_of(task, 4, "val")
    found = metric.result(metric.update(model, batch))
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
    written = texts(beam_search(model, memory, 5, task.vocabulary), task.vocabulary)
    bleu, references = Bleu("13a"), batch["references"]
    assert found["val_bleu"] == pytest.approx(bleu.score(bleu.counts(written, references)))
    pairs = zip(written, references, strict=True)
    assert found["val_steds"] == pytest.approx(sum(steds(a, b) for a, b in pairs) / 4)
    assert found["val_loss"] == pytest.approx(float(loss) / batch["units"])
    assert set(found) == {"val_bleu", "val_bleu_pt", "val_steds", "val_loss", "val_bleu_gain"}


def test_the_end_of_a_run_scores_a_beam_search(cards, batch_of):
    task, model = cards
    batch, metric = batch_of(task, 4, "val"), task.final_metric()
    found = metric.result(metric.update(model, batch))
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
    written = texts(beam_search(model, memory, 5, task.vocabulary, 4), task.vocabulary)
    bleu, references = Bleu("13a"), batch["references"]
    assert found["val_bleu_beam"] == pytest.approx(bleu.score(bleu.counts(written, references)))
    pairs = zip(written, references, strict=True)
    assert found["val_steds_beam"] == pytest.approx(sum(steds(a, b) for a, b in pairs) / 4)
    assert set(found) == {"val_bleu_beam", "val_bleu_pt_beam", "val_steds_beam"}


def test_one_beam_needs_no_beam_search(make_task):
    task = make_task(beams=1)
    task.setup()
    assert task.final_metric() is None


def test_only_a_noise_control_is_measured_against_blank_pages(make_task, batch_of):
    task = make_task(max_new_tokens=2)
    task.setup()
    metric = task.metric()
    assert "val_bleu_gain" not in metric.result(metric.update(task.build(), batch_of(task, 2)))


WRITTEN = ["the cat sat on a mat .", "dogs bark", "一只猫坐在垫子上。", ""]
REFERENCES = ["the cat sat on the mat .", "the dogs bark", "一只猫坐在那个垫子上。", "rain"]


@pytest.mark.parametrize("tokenize", ["zh", "13a"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_counts_of_parts_give_the_bleu_of_the_whole(tokenize, cut):
    bleu = Bleu(tokenize)
    parts = [
        bleu.counts(WRITTEN[:cut], REFERENCES[:cut]),
        bleu.counts(WRITTEN[cut:], REFERENCES[cut:]),
    ]
    summed = [sum(pair) for pair in zip(*parts, strict=True)]
    assert len(summed) == SIZE
    whole = sacrebleu.corpus_bleu(WRITTEN, [REFERENCES], tokenize=tokenize, force=True).score
    assert bleu.score(summed) == pytest.approx(whole, abs=1e-9)


def test_empty_text_scores_0_and_equal_text_100():
    bleu = Bleu("13a")
    assert bleu.score(bleu.counts([""], ["a b c d e"])) == 0
    assert bleu.score(bleu.counts(["a b c d e"], ["a b c d e"])) == pytest.approx(100)


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zh", "zh"), ("ZH", "zh"), ("zh_TW", "zh"), ("zh-Hans", "zh"), ("de", "13a"), ("en", "13a")],
)
def test_chinese_is_tokenized_by_character(language, tokenizer):
    assert bleu_tokenizer(language) == tokenizer


@pytest.mark.parametrize(
    ("markdown", "left"),
    [
        ("a \\(x+1\\) b", "a  b"),
        ("a \\[x\n+1\\] b", "a  b"),
        ("a\n\\begin{tabular}{ll} 1 & 2 \\\\\n3 & 4 \\end{tabular}\nb", "a\n\nb"),
        ("\\begin{table*}\\begin{tabular}{l} 1 \\end{tabular} say \\end{table*}b", "b"),
        ("(x) [y] z", "(x) [y] z"),
    ],
)
def test_plain_text_has_no_tables_and_formulas(markdown, left):
    assert plain_text(markdown) == left


PAGE = "# Title\n\nFirst.\n\n## Part\n\nSecond.\n\nThird."


def shape(node):
    return (node.kind[0], [shape(child) for child in node.children])


def test_paragraphs_are_children_of_their_heading():
    assert shape(tree(PAGE)) == ("r", [("h", [("p", []), ("h", [("p", []), ("p", [])])])])


def test_a_heading_needs_no_blank_line_after_it():
    assert shape(tree("# A\ntext\nmore\n# B")) == ("r", [("h", [("p", [])]), ("h", [])])


@pytest.mark.parametrize(
    ("written", "score"),
    [
        (PAGE, 100),
        ("# Another title\n\nOther words.\n\n## Part\n\nHere.\n\nAnd there.", 100),
        (PAGE + "\n\nOne more.", 100 * (1 - 1 / 6)),
        ("# Title\n\nFirst.", 100 * (1 - 3 / 5)),
        ("", 0),
        ("#\n\nFirst.\n\n## Part\n\nSecond.\n\nThird.", 100 * (1 - 1 / 5)),
    ],
)
def test_steds_counts_inserted_removed_and_changed_nodes(written, score):
    assert steds(written, PAGE) == pytest.approx(score)


def test_steds_is_symmetric_and_100_for_two_empty_texts():
    assert steds("# A\n\nb", PAGE) == pytest.approx(steds(PAGE, "# A\n\nb"))
    assert steds("", "\n") == 100
