import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from gearshift.models.common.bleu import Bleu

READ = ["the old man finds a small drum", "a child paints the quiet island today", "who sells it"]
WRITTEN = [
    "the old man sells a drum",
    "a child paints the quiet island",
    "nobody sells it again now",
]


@pytest.mark.parametrize("written", [WRITTEN, ["", "nobody", ""]])
def test_summed_counts_give_the_bleu_of_the_whole_at_each_order(written):
    bleu = Bleu("none", "none")
    counts = np.sum([bleu.counts([w], [r]) for w, r in zip(written, READ, strict=True)], axis=0)
    for order in (1, 2, 3, 4):
        whole = BLEU(max_ngram_order=order, smooth_method="none", tokenize="none")
        # One list for each set of references, as long as that of the hypotheses.
        assert bleu.score(counts, order) == pytest.approx(whole.corpus_score(written, [READ]).score)
