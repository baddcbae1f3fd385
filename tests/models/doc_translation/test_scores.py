import pytest
import sacrebleu

from models.doc_translation.metric import SIZE, Bleu, plain_text
from models.doc_translation.readers.page import bleu_tokenizer

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


def test_nothing_written_is_zero_and_all_right_is_a_hundred():
    bleu = Bleu("13a")
    assert bleu.score(bleu.counts([""], ["a b c d e"])) == 0
    assert bleu.score(bleu.counts(["a b c d e"], ["a b c d e"])) == pytest.approx(100)


def test_the_signature_tells_how_words_are_cut():
    assert "tok:zh" in Bleu("zh").signature and "nrefs:1" in Bleu("13a").signature


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("zh", "zh"), ("ZH", "zh"), ("zh_TW", "zh"), ("zh-Hans", "zh"), ("de", "13a"), ("en", "13a")],
)
def test_chinese_is_cut_by_character(language, tokenizer):
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
