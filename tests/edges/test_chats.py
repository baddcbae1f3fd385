"""Chats in today's formats are read whole, and an exported model renders them as training saw them."""

import json

import pytest
import transformers

from gearshift.models.language import subword_tokenizers as bpe
from gearshift.models.language.hugging_face import write_tokenizer
from gearshift.models.language.readers.file_corpus import read_corpus
from gearshift.models.language.readers.records import Turn, exchanges
from gearshift.models.language.subword_tokenizers import load
from gearshift.models.language.tokenizer import ByteTokenizer
from tests.models.errors import error_of
from tests.models.language.chats import KINDS, library_tokenizer

CONVERSATIONS = [
    [("user", "hi"), ("assistant", "hello")],
    [("system", "Be brief."), ("user", "two\nlines\n"), ("assistant", "yes\n\nno")],
    [("user", "a"), ("assistant", "b"), ("user", "c?"), ("assistant", "d's e  f")],
    [("user", "ls"), ("assistant", "<command>ls</command>"), ("user", " a\n"), ("assistant", "a")],
    [("user", "  ünï 日本 \U0001f600 {{ x }} {% if %}  "), ("assistant", "\U0001f600 end")],
    [("user", "'quotes' \"both\" \\n"), ("assistant", "\\ back")],
]


def external(folder):
    """A tokenizer of transformers without a chat template."""
    texts = [json.dumps(turns, ensure_ascii=False) for turns in CONVERSATIONS] * 3
    inner = bpe.train(texts, 400).inner
    tokens = {"bos_token": bpe.START, "eos_token": bpe.END}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens).save_pretrained(folder)
    return load(folder)


@pytest.fixture(scope="module", params=["bytes", "bpe", "external", *KINDS])
def tokenizer(request, tmp_path_factory):
    if request.param == "bytes":
        return ByteTokenizer()
    if request.param == "bpe":
        return bpe.train([json.dumps(turns) for turns in CONVERSATIONS] * 3, 400)
    if request.param in KINDS:
        return bpe.BpeTokenizer(library_tokenizer(request.param))
    return external(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def theirs(tokenizer, tmp_path_factory):
    """The exported tokenizer, as transformers loads it."""
    folder = tmp_path_factory.mktemp("exported")
    write_tokenizer(folder, tokenizer, 256, is_chat=True)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def rendered(theirs, turns, **options):
    messages = [{"role": role, "content": text} for role, text in turns]
    text = theirs.apply_chat_template(messages, tokenize=False, **options)
    found = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    assert found["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]
    return found["input_ids"]


def test_transformers_renders_the_tokens_of_training(tokenizer, theirs):
    for turns in CONVERSATIONS:
        said = [Turn(role, text) for role, text in turns]
        row = list[int]()
        for number, exchange in enumerate(tokenizer.encode_chats([exchanges(said, "a")])):
            assert exchange.begins_row == (number == 0)
            row += [*exchange.before.tolist(), *exchange.answer.tolist()]
            at = [at for at, turn in enumerate(said) if turn.role == "assistant"][number]
            assert row == rendered(theirs, turns[: at + 1]), turns
        assert (
            rendered(theirs, turns[:-1], add_generation_prompt=True)
            == tokenizer.prompt(said[:-1]).tolist()
        )
    assert theirs.eos_token_id == tokenizer.end
    with pytest.raises(Exception, match="unknown role critic"):
        rendered(theirs, [("critic", "no")])


USER, FOUR = {"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "four"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, FOUR]},
        {"prompt": [USER], "completion": [FOUR]},
        {"prompt": "What is 2 + 2?", "completion": "four"},
        {"prompt": [USER], "completion": "four"},
        {"messages": [{**USER, "content": [{"type": "text", "text": USER["content"]}]}, FOUR]},
        {"conversations": [{"from": "human", "value": USER["content"]},
                           {"from": "gpt", "value": "four"}]},
        {"messages": [{**USER, "weight": None}, {**FOUR, "weight": 1}], "id": 3},
        {"messages": [{**USER, "from": "Ada"}, {**FOUR, "from": "bot"}]},
    ],
)  # fmt: skip
def test_each_format_gives_the_same_pair(tmp_path, row):
    (tmp_path / "chat.jsonl").write_text(json.dumps(row))
    [exchange] = read_corpus(tmp_path / "chat.jsonl", None, "stop").records()
    [tokens] = ByteTokenizer().encode_chats([[exchange]])
    texts = [ByteTokenizer().decode(part) for part in (tokens.before, tokens.answer)]
    assert texts == ["User: What is 2 + 2?\nAssistant: ", "four"]


def test_a_part_that_is_no_text_is_not_joined_to_the_text(tmp_path):
    parts = [{"type": "reasoning", "text": "two and two"}, {"type": "text", "text": "four"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": [USER, {**FOUR, "content": parts}]}))
    assert "chat.jsonl:1" in error_of(read_corpus, path, None, "stop").where
