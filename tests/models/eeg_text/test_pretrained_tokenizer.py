import json

import pytest

from models.common.subwords import train_byte_bpe
from models.eeg_text.pretrained_decoder import TextModel
from models.eeg_text.pretrained_tokenizer import PretrainedTokenizer
from models.eeg_text.texts import SentenceTexts
from tests.models.eeg_text.pretrained_folders import (
    KINDS,
    SPECIALS,
    TEXTS,
    VOCABULARY,
    save_bart,
    save_tokenizer,
)

TEXT = "the old island </s> finds"


def model_of(kind, **changes):
    return TextModel({"model_type": kind, **KINDS[kind], **changes})


def test_sentences_begin_and_end_as_bart_was_trained(tmp_path):
    from transformers import PreTrainedTokenizerFast

    save_bart(tmp_path)
    found = PretrainedTokenizer(tmp_path, model_of("bart"))
    library = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    plain = library(TEXT, split_special_tokens=True, add_special_tokens=False)
    assert (found.start, found.end, found.pad, found.suffix) == (2, 2, 1, (2,))
    assert found.inner.convert_ids_to_tokens(found.hidden) == "<mask>"
    tokens = found.encode(TEXT)
    assert tokens == [0, *plain.input_ids]
    assert found.decode([*tokens, 2, 40]) == TEXT
    assert found.size <= VOCABULARY


def test_sentences_begin_and_end_as_t5_was_trained(tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    found = PretrainedTokenizer(tmp_path, model_of("t5"))
    assert (found.start, found.end, found.pad, found.suffix) == (1, 2, 1, (2,))
    assert found.inner.convert_ids_to_tokens(found.hidden) == "<unk>"  # it has no <mask>
    library = AutoTokenizer.from_pretrained(tmp_path)
    labels = library(text_target=TEXTS[0]).input_ids
    texts = SentenceTexts({"a": TEXTS[0]}, {"train": ["a"], "val": ["a"]}, found, 40, 0)
    assert texts.tokens["a"].tolist() == [found.start, *labels]
    cut = SentenceTexts({"a": TEXTS[0]}, {"train": ["a"], "val": ["a"]}, found, 4, 0)
    assert cut.tokens["a"].tolist() == [found.start, *labels[:3], found.end] and cut.cut == 1
    assert found.decode([*found.encode(TEXT), VOCABULARY + 9, 2, 40]) == TEXT


def test_mbart_writes_the_language_and_starts_with_it(tmp_path):
    from transformers import MBartTokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, -1.0) for word in ["the", "old", "man"]]
    MBartTokenizer(vocab=pieces).save_pretrained(tmp_path)
    found = PretrainedTokenizer(tmp_path, model_of("mbart", decoder_start_token_id=None))
    language = found.inner.convert_tokens_to_ids("en_XX")
    assert found.suffix == (2, language) and found.start == language
    assert found.encode("the old man") == [4, 5, 6]
    forced = found.inner.convert_tokens_to_ids("de_DE")
    model = model_of("mbart", decoder_start_token_id=None, forced_bos_token_id=forced)
    assert PretrainedTokenizer(tmp_path, model).suffix == (2, forced)


def test_a_tokenizer_in_python_works_and_is_saved(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    model = model_of("t5", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    found = PretrainedTokenizer(tmp_path, model)
    assert found.encode("ab </s>") == [byte + 3 for byte in b"ab </s>"]
    run = tmp_path / "run"
    run.mkdir()
    found.save(run)
    again = PretrainedTokenizer(run / "tokenizer", model)
    assert again.decode([*found.encode("Öl & </s>"), 900, again.end, 5]) == "Öl & </s>"


def test_a_saved_tokenizer_is_written_again_only_if_it_differs(tmp_path):
    save_tokenizer(tmp_path)
    found = PretrainedTokenizer(tmp_path, model_of("t5"))
    run = tmp_path / "run"
    found.save(run)
    files = sorted((run / "tokenizer").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    found.save(run)
    assert [file.stat().st_mtime_ns for file in files] == before
    content = files[0].read_bytes()
    files[0].write_text("{}")
    found.save(run)
    assert files[0].read_bytes() == content
    found.save(None)


def test_numbers_of_tokens_come_from_the_tokenizer_if_the_model_has_none(tmp_path):
    save_tokenizer(tmp_path, bos_token="<s>")
    nothing = {"pad_token_id": None, "eos_token_id": None, "decoder_start_token_id": None}
    found = PretrainedTokenizer(tmp_path, model_of("t5", **nothing))
    assert (found.start, found.end, found.pad) == (0, 2, 1)


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_a_tokenizer_file_alone_is_enough(tmp_path, kind):
    train_byte_bpe(TEXTS, VOCABULARY, SPECIALS).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **KINDS[kind]}))
    found = PretrainedTokenizer(tmp_path, model_of(kind))
    assert found.decode(found.encode(TEXT)) == TEXT
    assert found.suffix == (2,)
