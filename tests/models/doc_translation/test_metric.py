import pytest
import sacrebleu
import torch

from gearshift.models.common.bleu import SIZE
from gearshift.models.doc_translation.decoding import beam_search, texts
from gearshift.models.doc_translation.metric import (
    TranslationMetric,
    bleu_of,
    plain_text,
    steds,
    tree,
)
from tests.models.doc_translation.test_decoding import Counted


@pytest.mark.parametrize(("against_blank", "calls"), [(False, 2 + 5), (True, 3 + 10)])
def test_the_number_of_calls_is_independent_of_the_text(noisy, batch_of, against_blank, calls):
    task, model = noisy
    metric = TranslationMetric(task.vocabulary, bleu_of(""), 5, 1, against_blank)
    for count in (1, 4):
        counted = Counted(model)
        found = metric.result(metric.update(counted, batch_of(task, count, "val")))
        assert counted.calls == calls and ("val_bleu_gain" in found) == against_blank


@pytest.fixture(scope="module")
def noisy(make_task):
    """A noise control on cards, and an untrained model of it."""
    task = make_task(max_new_tokens=5, control="noise")
    task.setup()
    torch.manual_seed(0)
    return task, task.build().eval()


def test_scores_are_those_of_generated_texts_at_the_end_of_a_beam_search(
    noisy, make_task, batch_of
):
    task, model = noisy
    batch, bleu = batch_of(task, 4, "val"), bleu_of("")
    references = batch["references"]
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
    for metric, beams, end in ((task.metric(), 1, ""), (task.final_metric(), 4, "_beam")):
        found = metric.result(metric.update(model, batch))
        written = texts(beam_search(model, memory, 5, task.vocabulary, beams), task.vocabulary)
        score = bleu.score(bleu.counts(written, references))
        assert found[f"val_bleu{end}"] == pytest.approx(score)
        pairs = zip(written, references, strict=True)
        assert found[f"val_steds{end}"] == pytest.approx(sum(steds(a, b) for a, b in pairs) / 4)
        names = {f"val_bleu{end}", f"val_bleu_pt{end}", f"val_steds{end}"}
        assert set(found) == names | (set() if end else {"val_loss", "val_bleu_gain"})
        assert end or found["val_loss"] == pytest.approx(float(loss) / batch["units"])
    assert make_task(beams=1).final_metric() is None


WRITTEN = ["the cat sat on a mat .", "dogs bark", "一只猫坐在垫子上。", ""]
REFERENCES = ["the cat sat on the mat .", "the dogs bark", "一只猫坐在那个垫子上。", "rain"]


@pytest.mark.parametrize(
    ("language", "tokenize"),
    [
        ("zh", "zh"),
        ("zh_Hant", "zh"),
        ("ja", "char"),
        ("KO-kr", "char"),
        ("de", "13a"),
        ("", "13a"),
    ],
)
def test_counts_of_parts_give_the_bleu_of_the_whole(language, tokenize):
    bleu = bleu_of(language)
    assert f"tok:{tokenize}|" in bleu.signature
    parts = [bleu.counts(WRITTEN[:2], REFERENCES[:2]), bleu.counts(WRITTEN[2:], REFERENCES[2:])]
    summed = [sum(pair) for pair in zip(*parts, strict=True)]
    assert len(summed) == SIZE
    whole = sacrebleu.corpus_bleu(WRITTEN, [REFERENCES], tokenize=tokenize, force=True).score
    assert bleu.score(summed) == pytest.approx(whole, abs=1e-9)


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
    return (node.label[0], [shape(child) for child in node.children])


def test_paragraphs_are_children_of_their_heading():
    assert shape(tree(PAGE)) == ("r", [("h", [("p", []), ("h", [("p", []), ("p", [])])])])
    # A heading needs no blank line after it.
    assert shape(tree("# A\ntext\nmore\n# B")) == ("r", [("h", [("p", [])]), ("h", [])])


def test_steds_counts_inserted_removed_and_changed_nodes():
    for written, score in (
        (PAGE, 100),
        ("# Another title\n\nOther words.\n\n## Part\n\nHere.\n\nAnd there.", 100),
        (PAGE + "\n\nOne more.", 100 * (1 - 1 / 6)),
        ("# Title\n\nFirst.", 100 * (1 - 3 / 5)),
        ("", 0),
        ("#\n\nFirst.\n\n## Part\n\nSecond.\n\nThird.", 100 * (1 - 1 / 5)),
    ):
        assert steds(written, PAGE) == steds(PAGE, written) == pytest.approx(score), written
    assert steds("", "\n") == 100
