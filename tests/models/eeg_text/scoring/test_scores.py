import numpy as np
import pytest

from models.eeg_text.scoring.scores import bleu, bleu_counts, rouge1, word_errors

READ = ["the old man finds a small drum", "a child paints the quiet island today", "who sells it"]
WRITTEN = [
    "the old man sells a drum",
    "a child paints the quiet island",
    "nobody sells it again now",
]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_that_of_sacrebleu(order):
    from sacrebleu.metrics import BLEU

    theirs = BLEU(max_ngram_order=order, smooth_method="none", tokenize="none")
    # One list for each set of references, as long as that of the hypotheses.
    expected = theirs.corpus_score(WRITTEN, [READ]).score
    counts = sum(bleu_counts(w.split(), r.split()) for w, r in zip(WRITTEN, READ, strict=True))
    assert 100 * bleu(counts.tolist())[order - 1] == pytest.approx(expected)


def test_short_texts_are_penalised():
    counts = bleu_counts(["the", "old"], ["the", "old", "man"])
    assert bleu(counts.tolist())[0] == pytest.approx(np.exp(1 - 3 / 2))
    assert bleu(bleu_counts([], ["a"]).tolist()) == [0.0] * 4


def test_rouge_is_the_f1_of_words():
    assert rouge1(["a", "b", "c"], ["b", "c", "d", "e"]) == pytest.approx(2 * 2 / 7)
    assert rouge1(["a", "a", "a"], ["a"]) == pytest.approx(2 * 1 / 4)
    assert rouge1([], ["a"]) == rouge1(["a"], []) == rouge1([], []) == 0.0
    assert rouge1(["a"], ["a"]) == 1.0


@pytest.mark.parametrize(
    ("written", "read", "errors"),
    [("a b c", "a b c", 0), ("a c", "a b c", 1), ("a x c", "a b c", 1), ("x a b c", "a b c", 1),
     ("", "a b", 2), ("c b a", "a b c", 2), ("b c a", "a b c", 2)],
)  # fmt: skip
def test_word_errors_are_the_fewest_edits(written, read, errors):
    assert word_errors(written.split(), read.split()) == errors
