import pytest

from models.base import DataError
from models.eeg_text.tokenizer import ByteTokenizer, fit

TEXTS = ["the old man finds a drum", "the old child paints a drum"] * 3


def test_bytes_come_back_up_to_the_first_end():
    tokens = ByteTokenizer()
    assert tokens.decode([tokens.start, *tokens.encode("Öl & </s>"), tokens.end, 65]) == "Öl & </s>"
    assert tokens.decode([0xFF, tokens.pad, 65]) == "\N{REPLACEMENT CHARACTER}A"
    assert max(tokens.pad, tokens.start, tokens.end, tokens.hidden) < tokens.size == 272


def test_a_trained_one_is_kept_in_the_run_folder_and_read_from_there(tmp_path):
    first = fit("bpe", TEXTS, 400, tmp_path)
    again = fit("bpe", ["something else"], 400, tmp_path)
    text = "the old man, </s> and 家"
    assert again.encode(text) == first.encode(text)
    assert first.decode([*first.encode(text), first.end, 5]) == text
    assert len(first.encode("the old")) == 2
    assert first.size <= 400


def test_a_file_of_the_tokenizers_library_serves_too(tmp_path):
    fit("bpe", TEXTS, 400, tmp_path)
    assert fit(str(tmp_path), [], 400, None).decode(fit(str(tmp_path / "tokenizer.json"), [], 400, None).encode("drum")) == "drum"  # fmt: skip # noqa: E501


def test_one_that_is_too_large_is_told(tmp_path):
    fit("bpe", TEXTS, 400, tmp_path)
    with pytest.raises(DataError) as error:
        fit(str(tmp_path), [], 272, None)
    assert str(error.value).splitlines()[1:] == [
        "  where         model.tokenizer, model.size",
        "  allowed       a tokenizer of at most 272 entries",
        "  fix           --set model.tokenizer=bytes",
    ]


def test_what_is_no_tokenizer_is_told(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is not a tokenizer"):
        fit(str(tmp_path), [], 272, None)
    with pytest.raises(DataError, match="is not a tokenizer"):
        fit(str(tmp_path / "none.json"), [], 272, None)


def test_one_without_the_tokens_that_are_needed_is_told(tmp_path):
    import tokenizers

    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[])).save(str(path))
    with pytest.raises(DataError, match="has no token <pad>"):
        fit(str(path), [], 272, None)
