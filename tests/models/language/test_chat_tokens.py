"""Rows of conversations have the tokens of transformers, and labels on each answer and its end."""

import json

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from gearshift.models.base import DataError, Message, Prompt, Sampling
from gearshift.models.language import subword_tokenizers
from gearshift.models.language.readers.records import Turn
from gearshift.models.language.rows import IGNORE
from tests.models.language.chats import KINDS, TEMPLATES, chat_tokenizer, marked, plain
from tests.models.language.in_memory import conversation, dialogues
from tests.models.language.test_hugging_face import export, load_model, load_tokenizer

ANSWERS = ("Hello word", "<b>bold</b>  two", "12\nü yes", "think: <thin", "12")
ONE_ROW = [name for name in TEMPLATES if name not in ("drops reasoning", "ends nothing")]


def turns_of(answers):
    turns = []
    for number, answer in enumerate(answers):
        turns += [Turn("user", f" number {number}?"), Turn("assistant", answer)]
    return turns


def messages(turns):
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def rows_of(tokenizer, turns):
    *history, request, answer = turns
    samples = dialogues(
        [conversation(request.text, answer.text, history)], 1000, tokenizer=tokenizer
    )
    rows = [samples.sample(number) for number in range(len(samples))]
    return [
        (np.append(row.inputs[:1], np.append(row.inputs[1:], row.labels[-1])), row.labels)
        for row in rows
    ]


def expected(tokenizer, template, turns):
    """Tokens and labels by transformers: those that its marks are around."""
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    found = tokenizer.inner.apply_chat_template(
        messages(turns), chat_template=marked(template), **options
    )
    tokens, mask = np.array(found["input_ids"]), np.array(found["assistant_masks"])
    whole = tokenizer.inner.apply_chat_template(
        messages(turns), chat_template=plain(template), tokenize=True, return_dict=False
    )
    assert tokens.tolist() == whole
    last = np.flatnonzero(mask)[-1]
    tokens, mask = tokens[: last + 1], mask[: last + 1]
    return tokens, np.where(mask[1:] == 1, tokens[1:], IGNORE)


def assert_same(row, tokens, labels):
    assert row[0].tolist() == tokens.tolist()
    assert row[1].tolist() == labels.tolist()


@pytest.mark.parametrize("written", [plain, marked])
@pytest.mark.parametrize("name", ONE_ROW)
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_is_one_row_of_its_tokens_with_labels_on_all_answers(
    tmp_path, kind, name, written
):
    template = TEMPLATES[name]
    tokenizer = chat_tokenizer(tmp_path, kind, written(template))
    for answers in (ANSWERS, *[[answer] for answer in ANSWERS]):
        turns = turns_of(answers)
        [row] = rows_of(tokenizer, turns)
        assert_same(row, *expected(tokenizer, template, turns))
        end = "<|im_end|>" if name == "chatml" else "</s>"
        assert tokenizer.inner.convert_ids_to_tokens(int(row[1][-1])) == end
        assert (row[1] == row[1][-1]).sum() == len(answers)


@pytest.mark.parametrize("name", ["drops reasoning", "ends nothing"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_answer_is_a_row_as_its_template_renders_it_if_later_turns_change_it(
    tmp_path, kind, name
):
    template = TEMPLATES[name]
    tokenizer = chat_tokenizer(tmp_path, kind, plain(template))
    turns = turns_of(ANSWERS)
    rows = rows_of(tokenizer, turns)
    assert len(rows) == len(ANSWERS)
    for number, row in enumerate(rows, start=1):
        tokens, labels = expected(tokenizer, template, turns[: 2 * number])
        earlier = np.flatnonzero(np.diff((labels == IGNORE).astype(int)) == 1)
        if name == "ends nothing":
            tokens, labels = (np.append(array, tokenizer.end) for array in (tokens, labels))
        labels[: earlier[-1] + 1 if len(earlier) else 0] = (
            IGNORE  # of the answers before the last one
        )
        assert_same(row, tokens, labels)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_tokens_of_transformers(tmp_path, kind, name):
    tokenizer = chat_tokenizer(tmp_path, kind, plain(TEMPLATES[name]))
    turns = turns_of(ANSWERS)[:-1]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    assert tokenizer.prompt(turns).tolist() == tokenizer.inner.apply_chat_template(
        messages(turns), **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_marks_of_a_template_say_where_an_answer_begins_and_its_end_token_is_learned(
    tmp_path, kind
):
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>[draft] ' }}"
        "«{{ m.content }}<|im_end|>»{% else %}{{ '<|user|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    without_end = marked(template.replace("<|im_end|>»", "»<|im_end|>"))
    turns = turns_of(ANSWERS)
    for number, written in enumerate((marked(template), without_end)):
        tokenizer = chat_tokenizer(tmp_path / str(number), kind, written)
        [row] = rows_of(tokenizer, turns)
        assert_same(row, *expected(tokenizer, template, turns))


def test_an_answer_ends_with_the_end_of_text_and_with_what_the_template_writes(tmp_path):
    ends = {}
    for number, (name, template) in enumerate(TEMPLATES.items()):
        tokenizer = chat_tokenizer(tmp_path / str(number), "prepend", plain(template))
        ends[name] = tokenizer.inner.convert_ids_to_tokens(tokenizer.stops)
    assert ends["chatml"] == ends["drops reasoning"] == ["</s>", "<|im_end|>"]
    assert all(
        ends[name] == ["</s>"] for name in ("zephyr", "llama", "opens <think>", "ends nothing")
    )


SAID = {"Hello": "Hello  word", "bold": "<b>no</b>\n12"}
REQUESTS = [f"{word} number {number}" for number in range(12) for word in SAID]


def model_folder(folder, kind, name):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=800,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return chat_tokenizer(folder, kind, plain(TEMPLATES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "chatml", "drops reasoning"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_overfitted_model_answers_as_its_export_does_in_transformers(
    tmp_path, make_task, ready_task, train, kind, name
):
    model_folder(tmp_path / "model", kind, name)
    rows = [{"prompt": request, "response": SAID[request.split()[0]]} for request in REQUESTS]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "run").mkdir()
    settings = {"path": path, "pretrained": str(tmp_path / "model"), "share": 0.1}
    task = ready_task(tmp_path / "run", **settings)
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=400, lr=5e-3)
    theirs = load_model(export(task, model.eval(), tmp_path / "export"))
    tokenizer = load_tokenizer(tmp_path / "export")
    task = make_task(tmp_path / "run", **settings)
    task.setup_without_data()
    for text in REQUESTS[:8]:
        request = Message("user", text)
        ours = "".join(task.generate(model, Prompt("a", (request,)), Sampling(32, temperature=0.0)))
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        asked = tokenizer.apply_chat_template([{"role": "user", "content": text}], **options)
        written = theirs.generate(**asked, max_new_tokens=32, do_sample=False)[0]
        answer = tokenizer.decode(written[asked["input_ids"].shape[1] :], skip_special_tokens=True)
        assert ours == answer
        assert SAID[text.split()[0]] in ours
        assert int(written[-1]) in task.tokenizer.stops


@pytest.mark.parametrize("has_file", [False, True])
def test_generation_with_the_export_ends_where_the_template_does(tmp_path, make_task, has_file):
    tokenizer = model_folder(tmp_path / "model", "metaspace", "chatml")
    file = tmp_path / "model" / "generation_config.json"
    if has_file:
        file.write_text(json.dumps({"eos_token_id": [2, 5], "temperature": 0.5}))
    else:
        file.unlink()
    make_task(pretrained=str(tmp_path / "model")).write_hugging_face(tmp_path / "out")
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    end = tokenizer.inner.convert_tokens_to_ids("<|im_end|>")
    assert config.eos_token_id == ([2, 5, end] if has_file else [2, end])
    assert written.get("temperature") == (0.5 if has_file else None)


HOURS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GIGABYTES = "{{ 'a' * 10 ** 10 }}"


@pytest.mark.parametrize("template", [HOURS, GIGABYTES])
def test_a_template_that_takes_hours_or_all_memory_is_an_error(tmp_path, monkeypatch, template):
    monkeypatch.setattr(subword_tokenizers, "_TEMPLATE_S", 1)
    tokenizer = chat_tokenizer(tmp_path, "metaspace", template)
    with pytest.raises(DataError) as raised:
        tokenizer.prompt([Message("user", "Is it so?")])
    assert raised.value.where.startswith(str(tmp_path))
