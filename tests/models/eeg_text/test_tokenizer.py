import pytest

from models.base import DataError
from models.eeg_text.texts import SentenceByteTokenizer, build_tokenizer
from tests.models.errors import error_of

TEXTS = ["the old man finds a drum", "the old child paints a drum"] * 3


def test_bytes_are_decoded_up_to_the_first_end_token():
    tokens = SentenceByteTokenizer()
    assert tokens.decode([tokens.start, *tokens.encode("Öl & </s>"), tokens.end, 65]) == "Öl & </s>"
    assert tokens.decode([0xFF, tokens.pad, 65]) == "\N{REPLACEMENT CHARACTER}A"
    assert max(tokens.pad, tokens.start, tokens.end, tokens.hidden) < tokens.size == 272


def test_a_trained_tokenizer_is_saved_in_the_run_folder_and_loaded_from_there(tmp_path):
    first = build_tokenizer("bpe", TEXTS, 400, tmp_path)
    again = build_tokenizer("bpe", ["something else"], 400, tmp_path)
    text = "the old man, </s> and 家"
    assert again.encode(text) == first.encode(text)
    assert first.decode([*first.encode(text), first.end, 5]) == text
    assert len(first.encode("the old")) == 2
    assert first.size <= 400


def test_a_too_large_tokenizer_is_an_error(tmp_path):
    build_tokenizer("bpe", TEXTS, 400, tmp_path)
    error = error_of(build_tokenizer, str(tmp_path), [], 272, None)
    assert str(error).splitlines()[1:] == [
        "  where         model.tokenizer, model.size",
        "  allowed       a tokenizer of at most 272 entries",
        "  fix           --set model.tokenizer=bytes",
    ]


def test_a_tokenizer_without_the_special_tokens_is_an_error(tmp_path):
    import tokenizers

    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[])).save(str(path))
    with pytest.raises(DataError, match="has no token <pad>"):
        build_tokenizer(str(path), [], 272, None)
