import json

import numpy as np
import pytest
import tokenizers

from gearshift.models.base import DataError
from gearshift.models.language import subword_tokenizers as bpe
from gearshift.models.language.subword_tokenizers import ExternalTokenizer, load
from gearshift.models.language.tokenizer import TAGS, ByteTokenizer

TEXTS = [
    "def main():\n    return 0\n",
    "<command>ls -l</command> ünïcode 日本 \U0001f600",
    " leading and trailing \n\n",
    "it speaks of <|end|> and <|pad|>",
]
CORPUS = ["the quick brown fox jumps over the lazy dog " * 5, "def main(): return main"] * 3


@pytest.fixture(scope="module")
def trained():
    return bpe.train(CORPUS, 400)


def test_texts_round_trip(trained):
    for tokenizer in (ByteTokenizer(), trained):
        for text in TEXTS:
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bpe_keeps_tags_whole_and_shortens_what_it_was_trained_on(trained):
    assert bpe.train(CORPUS, 400).inner.to_str() == trained.inner.to_str()
    assert all(len(trained.encode(tag)) == 1 for tag in TAGS)
    tokens = trained.encode("<|end|>").tolist()
    assert trained.end not in tokens and len(tokens) > 1  # written out, it is text
    assert len(trained.encode(CORPUS[0])) < len(CORPUS[0]) / 2 and trained.size <= 400


@pytest.mark.parametrize("padding", [None, {"length": 40}, {}])
def test_a_batch_has_the_tokens_of_each_text_alone(trained, folder, padding):
    inner = tokenizers.Tokenizer.from_str(trained.inner.to_str())
    if padding is not None:
        inner.enable_padding(**padding)
    one, texts = bpe.BpeTokenizer(inner, "padded"), [*TEXTS, "", *CORPUS, "\x1c"]
    alone = [inner.encode(text, add_special_tokens=False).ids for text in texts]
    assert [tokens.tolist() for tokens in one.encode_batch(texts)] == alone
    for tokenizer in (ByteTokenizer(), load(folder)):
        batch = tokenizer.encode_batch(texts)
        assert all(map(np.array_equal, batch, map(tokenizer.encode, texts)))


@pytest.mark.parametrize("name", ["tokenizer.json", "."])
def test_a_pattern_that_does_not_end_is_an_error(folder, name):
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    state["pre_tokenizer"] = {**pattern, "invert": False}
    file.write_text(json.dumps(state))
    with pytest.raises(DataError) as error:
        load(folder / name).encode("a" * 40 + "b")
    assert "tokenizer" in error.value.where or str(folder) in error.value.where


@pytest.fixture
def folder(tmp_path, trained):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.inner, bos_token=bpe.START, eos_token=bpe.END, pad_token=bpe.PAD
    )
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_hugging_face_folder_gives_its_tokens(folder, trained):
    tokenizer = load(folder)
    assert isinstance(tokenizer, ExternalTokenizer)
    assert (tokenizer.start, tokenizer.end) == (trained.start, trained.end)
    assert tokenizer.encode(TEXTS[0]).tolist() == trained.encode(TEXTS[0]).tolist()
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]


@pytest.mark.parametrize("fixed", ["padding", "truncation"])
def test_texts_of_a_hugging_face_folder_have_the_tokens_of_transformers(folder, trained, fixed):
    state = json.loads((folder / "tokenizer.json").read_text())
    inner = tokenizers.Tokenizer.from_str(json.dumps(state))
    if fixed == "padding":
        inner.enable_padding(length=80)
    else:
        inner.enable_truncation(4)
    inner.save(str(folder / "tokenizer.json"))
    tokenizer = load(folder)
    texts = [*TEXTS, f"{CORPUS[0]}{bpe.END} and on", ""]
    batch = [tokens.tolist() for tokens in tokenizer.encode_batch(texts)]
    expected = tokenizer.inner(texts, add_special_tokens=False)["input_ids"]
    assert batch == expected
    assert trained.end in expected[-2]
