import os
import pickle

import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.common.data_files import CACHE_VARIABLE, cache_folder, identity
from gearshift.models.language.embedded import read_documents
from gearshift.models.language.encoded import encode
from gearshift.models.language.readers.corpus import SMALL, from_records
from gearshift.models.language.readers.file_corpus import read_corpus
from gearshift.models.language.subword_tokenizers import train
from tests.models.errors import error_of
from tests.models.language.in_memory import TOKENIZER


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def write_blocks(path, word, size):
    """Text of `size` bytes, the same number for words of the same length."""
    block = f"{word} and more of it\n" * 4 + "\n"
    with path.open("w", encoding="utf-8") as file:
        for number in range(size // (len(block) + 16)):
            file.write(f"block {number:09}\n{block}")
    return path


@pytest.fixture
def large(tmp_path):
    return write_blocks(tmp_path / "a.txt", "first", SMALL + 100_000)


def tokens_of(path):
    corpus = read_corpus(path, None, "stop")
    encoded = encode(corpus, TOKENIZER)
    return encoded, encoded.read(0, int(encoded.offsets[-1]))


def test_cached_tokens_are_those_in_memory_and_read_again_by_other_starts_and_processes(large):
    encoded, first = tokens_of(large)
    expected = []
    for number, document in enumerate(read_corpus(large, None, "stop").records()):
        assert encoded.text_bytes[number] == len(document.text.encode())
        expected += [[TOKENIZER.start], TOKENIZER.encode(document.text), [TOKENIZER.end]]
    assert np.array_equal(first, np.concatenate(expected))
    assert encoded.sizes.sum() == len(first)
    packed = pickle.dumps(encoded)
    assert len(packed) < len(first)  # the path of the file, not its content
    again = pickle.loads(packed)
    assert np.array_equal(again.read(10, 500), first[10:500]) and again.read(7, 7).tolist() == []
    written = {file: identity(file) for file in cache_folder().rglob("*")}
    assert np.array_equal(tokens_of(large)[1], first)
    assert {file: identity(file) for file in cache_folder().rglob("*")} == written
    [file] = cache_folder().glob("language-tokens*/tokens.npy")
    os.truncate(file, 1000)
    with pytest.raises(DataError, match="cached tokens are truncated") as error:
        encoded.read(600, 700)
    assert error.value.where == str(file)
    write_blocks(large, "other", SMALL + 100_000)
    assert "other and more" in TOKENIZER.decode(tokens_of(large)[1][:300])


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = write_blocks(tmp_path / "a.txt", "first", 5000)
    corpus = read_corpus(path, None, "stop")
    write_blocks(path, "other", 6000)
    assert error_of(encode, corpus, TOKENIZER).where == "data.path"
    assert not list(cache_folder().glob("language-tokens*"))


def test_sizes_are_estimated_from_every_eighth_document_and_exact_for_bytes():
    corpus = from_records("embedded:python", read_documents())
    assert np.array_equal(
        encode(corpus, TOKENIZER, estimates=True).sizes, encode(corpus, TOKENIZER).sizes
    )
    tokenizer = train([record.text for record in read_documents()[::60]], 1024)
    exact = encode(corpus, tokenizer)
    estimated = encode(corpus, tokenizer, estimates=True)
    assert len(estimated.sizes) == len(exact.sizes)
    assert estimated.sizes.sum() == pytest.approx(exact.sizes.sum(), rel=0.03)
    assert not estimated.read(0, 1000).any()
