import pytest
import torch
from sacrebleu.metrics import BLEU

from gearshift.models.common.predictions import FixedDraws
from gearshift.models.doc_translation.decoding import beam_search, texts
from gearshift.models.doc_translation.showing import printable


def test_a_page_is_translated_as_it_is_alone_and_scored_against_as_many_tokens(ready_task):
    task = ready_task(max_new_tokens=5)
    torch.manual_seed(0)
    model, pages = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = task.predictions(model)
        last = pages.sample(len(pages) - 1, FixedDraws())
        batch = task.collate([last])
        memory = model(batch["page_global"], batch["page_local"])
        (own,) = texts(beam_search(model, memory, 5, task.vocabulary), task.vocabulary)
    name, reference, written, bleu, _ = found.rows[-1]
    assert name == "{1} of {0}".format(*last["meta"])
    assert written == printable(own)
    assert (
        reference
        and last["reference"].startswith(reference)
        and len(reference) < len(last["reference"])
    )
    expected = BLEU(tokenize="13a", force=True).corpus_score([own], [[reference]]).score
    assert bleu == pytest.approx(expected)
