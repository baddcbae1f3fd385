import pytest

from gearshift.models.common import subwords
from tests.models.errors import error_of

TEXTS = ["the river is wide", "the table is wide", "a river and a table"] * 5


def fitted():
    return subwords.train_byte_bpe(TEXTS, 300, ["<pad>", "</s>"])


def test_any_text_survives_encoding_and_equal_texts_give_an_equal_tokenizer():
    found = fitted()
    for text in (*TEXTS[:3], "öde Straße 中文\t\n", " leading"):
        assert found.decode(found.encode(text).ids, skip_special_tokens=False) == text
    assert fitted().to_str() == found.to_str()
    assert [found.token_to_id(token) for token in ("<pad>", "</s>")] == [0, 1]


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}'])
def test_a_file_that_is_not_a_tokenizer_is_an_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    error = error_of(subwords.load_tokenizer, path)
    assert error.message.startswith(f"'{path}' is not a tokenizer: ")
