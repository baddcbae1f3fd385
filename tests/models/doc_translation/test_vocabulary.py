from gearshift.models.doc_translation.vocabulary import MIN_SIZE, load_or_train, train
from tests.models.tasks import saving_context

TEXTS = ["# 标题\n\n一只猫坐在垫子上。", "the cat  sat\ton the mat", "一只狗坐在那里。"] * 3
NEVER_SEEN = [
    "완전히 다른 글자",
    "emoji 🎉🇨🇭 and \u0000 zero",
    "<|end|> and <0x0A> are text",
    "  two blanks, a line end \r\n and a tab\t",
    "combining é and \u200b",
    "",
]


def test_decoding_inverts_encoding_exactly():
    vocabulary = train(TEXTS, 330)
    for text in TEXTS[:3] + NEVER_SEEN:
        tokens = vocabulary.encode(text)
        assert vocabulary.decode(tokens) == text
        assert vocabulary.end not in tokens and len(tokens) <= len(text.encode())
        assert all(0 <= token < vocabulary.size <= 330 for token in tokens)


def test_the_text_ends_at_the_first_end_token():
    vocabulary = train(TEXTS, 330)
    tokens = [vocabulary.start, *vocabulary.encode("the cat"), vocabulary.end, 300, vocabulary.pad]
    assert vocabulary.decode(tokens) == "the cat"


def test_equal_texts_give_an_equal_vocabulary_which_the_run_folder_keeps(tmp_path):
    first = load_or_train(TEXTS, 330, saving_context(tmp_path))
    assert train(TEXTS, 330).inner.get_vocab() == first.inner.get_vocab()
    again = load_or_train(["other text"], 330, saving_context(tmp_path))
    assert again.inner.get_vocab() == first.inner.get_vocab()
    assert again.decode(again.encode(NEVER_SEEN[2])) == NEVER_SEEN[2]
    assert MIN_SIZE == 259
