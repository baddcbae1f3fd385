import csv
import gzip
import json

import pytest

from models.base import DataError
from models.common.split import SplitRule, split_groups
from models.language.readers.corpus import read_corpus
from models.language.readers.records import Turn
from tests.models.language.reading import documents, error_text, exchanges, groups, pairs, read, texts, write
from tests.privileges import unreadable

KNOWN = (
    "request: prompt, instruction, input; context: context, input; "
    "answer: response, completion, output; system: system; "
    "messages: messages, conversations; text: text"
)


def rows(path, *given):
    """JSON lines, of text as it is or of other values."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in given)
    return write(path, "\n".join(lines))


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_csv_with_quoted_line_breaks_and_other_columns(tmp_path):
    content = 'prompt,response,Category\nhow,"one\ntwo ""three""",x\nwhy,because,y\n'
    corpus = read(write(tmp_path / "a.csv", content))
    assert pairs(corpus) == [("how", 'one\ntwo "three"'), ("why", "because")]


def test_json_lines_of_pairs_and_messages(tmp_path):
    turns = ("system", "user", "assistant", "user", "assistant")
    talk = messages(*zip(turns, ("brief", "c", "d", "e", "f"), strict=True))
    corpus = read(rows(tmp_path / "a.jsonl", {"prompt": "a", "response": "b"}, "", talk))
    assert pairs(corpus) == [("a", "b"), ("c", "d"), ("e", "f")]
    assert [t.text for t in exchanges(corpus)[2].before] == ["brief", "c", "d", "e"]
    # All answers of one conversation are in one group.
    found = groups(corpus)
    assert found[1] == found[2] != found[0]


def test_plain_text_with_roles_is_conversations(tmp_path):
    content = "User: a\nAssistant: b\nb2\n\nSystem: s\nUser: c\n\nAssistant: d\nUser: e\nAssistant: f\n"
    corpus = read(write(tmp_path / "a.txt", content))
    assert pairs(corpus) == [("a", "b\nb2"), ("c", "d"), ("e", "f")]
    assert exchanges(corpus)[1].before == (Turn("system", "s"), Turn("user", "c"))


def test_a_plain_text_file_becomes_documents_of_whole_blocks_or_lines(tmp_path):
    content = "\n\n\n".join(f"block {i}\nsecond line" for i in range(400))
    corpus = read(write(tmp_path / "a.txt", content))
    assert 40 <= len(corpus) <= 60
    assert "\n\n".join(texts(corpus)) == content.replace("\n\n\n", "\n\n")
    assert all(text.startswith("block") for text in texts(corpus))
    lines = write(tmp_path / "b.txt", "\n".join(f"line number {i}" for i in range(90)))
    assert len(read(lines)) > 30


def test_a_folder_gives_a_document_for_each_file_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    write(tmp_path / "z.txt", "last")
    write(tmp_path / "b" / "m.py", "middle\n\nwith a blank line")
    write(tmp_path / "a.md", "first")
    write(tmp_path / ".git" / "x.txt", "hidden")
    write(tmp_path / "image.png", b"\x89PNG")
    corpus = read(tmp_path)
    assert documents(corpus) == [
        ("a.md", "first"),
        ("b/m.py", "middle\n\nwith a blank line"),
        ("z.txt", "last"),
    ]
    assert corpus.left_out["ignored_files"] == 1


def test_line_n_of_a_second_file_answers_line_n(tmp_path):
    requests, answers = write(tmp_path / "a.nl", "a\nb\n"), write(tmp_path / "a.cm", "x\ny\n")
    assert pairs(read(requests, answers=answers)) == [("a", "x"), ("b", "y")]
    write(answers, "x\ny\nz\n")
    with pytest.raises(DataError, match=r"has 2 lines, .* has 3"):
        read(requests, answers=answers)


def test_equal_requests_and_texts_are_one_before_the_split_and_counted(tmp_path):
    asked = [("List  all", "ls"), ("list all", "ls -a"), ("LIST ALL ", "ls"), ("other", "x")]
    content = "input,output\n" + "\n".join(f"{q},{a}" for q, a in asked)
    corpus = read(write(tmp_path / "a.csv", content))
    assert pairs(corpus) == [("List  all", "ls"), ("other", "x")]
    assert corpus.left_out["duplicates"] == 2
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(60):
        write(folder / f"{i}.txt", f"text {i % 30}")
    corpus = read(folder)
    splits = split_groups(groups(corpus), SplitRule(0.2), "groups")
    side = {group: name for name, ids in splits.items() for group in ids}
    found = [(text, side[group]) for group, text in documents(corpus)]
    assert len(found) == len(dict(found)) == 30


def test_conversations_with_equal_first_request_are_in_one_split(tmp_path):
    first = [("user", "Hello"), ("assistant", "hi")]
    talks = (messages(*first, ("user", x), ("assistant", "ok")) for x in ("one", "two", "three"))
    corpus = read(rows(tmp_path / "a.jsonl", *talks))
    assert len(set(groups(corpus))) == 1
    assert pairs(corpus) == [("Hello", "hi"), ("one", "ok"), ("two", "ok"), ("three", "ok")]
    assert corpus.left_out["duplicates"] == 2


def test_rows_of_texts_are_documents(tmp_path):
    jsonl = rows(tmp_path / "a.jsonl", {"text": "one"}, {"text": "\U0001f642"})
    table = write(tmp_path / "a.csv", "id,text\n1,one\n2,\U0001f642\n")
    assert texts(read(jsonl)) == texts(read(table)) == ["one", "\U0001f642"]


def test_a_folder_without_permission_is_an_error(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder / "a.txt", "text")
    with unreadable(folder):
        message = error_text(folder)
    assert "cannot be read: Permission denied\n  where         data.path\n" in message


def test_invalid_json_lines_are_reported_together_with_their_lines(tmp_path):
    good, wrong = {"prompt": "a", "response": "b"}, {"prompt": 1.5, "output": "a"}
    path = rows(tmp_path / "a.jsonl", good, '{"prompt": "a", ', wrong, "[1]", "[2]")
    assert error_text(path) == (
        "4 of 5 rows cannot be used\n"
        "  where         a.jsonl:2: not JSON: Expecting property name enclosed in double "
        "quotes at column 17\n"
        "                a.jsonl:3: prompt is float, not text\n"
        "                a.jsonl:4: list, not an object\n"
        "                and 1 more\n"
        "  fix           correct prompt in a.jsonl:3, or skip them with  --set data.on_bad=skip"
    )
    corpus = read(path, "skip")
    assert len(corpus) == 1 and corpus.left_out["skipped_rows"] == 4


def test_conversations_without_an_answer_and_misspelt_roles_are_reported(tmp_path):
    text = write(tmp_path / "a.txt", "User: a\nAssistant:\n\nUser: b\n\nUser: c\nAssistant: d\n")
    assert error_text(text) == (
        "2 of 3 rows cannot be used\n"
        "  where         a.txt:1: Assistant: is empty\n"
        "                a.txt:4: no request with an answer\n"
        "  fix           correct a.txt:1 and the others, or skip them with  --set data.on_bad=skip"
    )
    assert pairs(read(text, "skip")) == [("c", "d")]
    write(text, "User: a\nAssistant: b\n\nUser: c\nAsistant: d\n")
    assert "a.txt:4: unknown role 'Asistant:'; did you mean Assistant:" in error_text(text)


def test_rows_without_an_answer_are_an_error_with_the_names_that_are_known(tmp_path):
    assert error_text(write(tmp_path / "a.csv", "prompt,reply\na,b\n")) == (
        "no column for the answer among: prompt, reply\n"
        "  where         a.csv:1\n"
        f"  allowed       {KNOWN}\n"
        "  fix           rename a column, or say what one means:  "
        "--set 'data.columns=[reply=answer]'"
    )
    declared = read_corpus(tmp_path / "a.csv", None, "stop", {"reply": "answer"})
    assert pairs(declared) == [("a", "b")]
    good = {"prompt": "a", "response": "b"}
    path = rows(tmp_path / "b.jsonl", {"en": "one", "de": "eins"}, good)
    assert error_text(path).startswith(
        "1 of 2 rows cannot be used\n"
        "  where         b.jsonl:1: no column for request and answer among: en, de; "
        "data.columns names others\n"
    )
    assert pairs(read(path, "skip")) == [("a", "b")]


def test_a_column_that_no_rule_reads_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path / "a.csv", "instruction,inptu,Output,topic\na,b,c,d\n")
    assert error_text(path) == (
        "2 columns are not read: inptu, topic\n"
        "  where         a.csv:1\n"
        f"  allowed       {KNOWN}; ignored: id, category, source, url, timestamp, meta, metadata\n"
        "  did you mean  input\n"
        "  fix           --set 'data.columns=[inptu=ignore, topic=ignore]'"
    )
    declared = {"inptu": "context", "topic": "ignore"}
    assert pairs(read_corpus(path, None, "stop", declared)) == [("a\n\nb", "c")]
    pair = {"prompt": "a", "response": "b"}
    path = rows(tmp_path / "a.jsonl", pair, pair | {"response_2": "e"})
    assert error_text(path).startswith("1 column is not read: response_2\n  where         a.jsonl:2")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_common_instruction_formats_are_read_whole(tmp_path, suffix):
    for row, turns in (
        ({"instruction": "a", "input": "b", "output": "c"}, ["user a\n\nb", "assistant c"]),
        ({"instruction": "a", "input": "", "output": "c"}, ["user a", "assistant c"]),
        ({"instruction": "a", "context": "b", "response": "c"}, ["user a\n\nb", "assistant c"]),
        ({"prompt": "a", "completion": "b"}, ["user a", "assistant b"]),
        ({"System": "s", "Prompt": "a", "Output": "b"}, ["system s", "user a", "assistant b"]),
    ):
        path = tmp_path / f"a.{suffix}"
        if suffix == "jsonl":
            rows(path, row)
        else:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([row.keys(), row.values()])
        [found] = exchanges(read(path))
        whole = [*((t.role, t.text) for t in found.before), ("assistant", found.answer)]
        assert [f"{role} {text}" for role, text in whole] == turns, row


def test_conversations_of_sharegpt_are_read_with_their_system_prompt(tmp_path):
    turns = [("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    talk = [{"from": role, "value": text} for role, text in turns]
    row = {"id": 1, "system": "s", "conversations": talk}
    found = exchanges(read(rows(tmp_path / "a.jsonl", row)))
    assert [e.answer for e in found] == ["b", "d"]
    before = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    assert [(t.role, t.text) for t in found[1].before] == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": "a", "response": "b"}\n'),
        ("a.CSV", "prompt,response\na,b\n"),
        ("a.txt", "User: a\nAssistant: b\n"),
    ],
)
def test_compressed_files_give_the_same_records(tmp_path, name, content):
    expected = read(write(tmp_path / name, content))
    (tmp_path / "folder").mkdir()
    raw = gzip.compress(content.encode())
    path = write(tmp_path / "folder" / f"{name}.gz", raw)
    write(tmp_path / "folder" / "b.tar.gz", gzip.compress(b"ignored"))
    for place in (path, tmp_path / "folder"):
        assert pairs(read(place)) == pairs(expected) == [("a", "b")]
    assert read(path).source.format == expected.source.format
    for damaged in (raw[:-12], raw[:12] + bytes([raw[12] ^ 255]) + raw[13:]):
        assert error_text(write(path, damaged)).startswith("'DATA' cannot be read: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": NaN}', "text is float, not text"),
        ('{"input": null, "output": "b"}', "input is null, not text"),
        ('{"text": "\\ud800"}', "not JSON: half of a surrogate pair (\\ud800 to"),
        ('{"\\udc00": 1, "text": "x"}', "not JSON: half of a surrogate pair"),
        ("[" * 100_000, "not JSON: "),
        ('{"text": ' + "9" * 5000 + "}", "no"),  # Python 3.10.0 reads it as a number
        ('{"text": "cut', "not JSON: Unterminated string starting at at column 10"),
        (
            '{"messages": {"role": "user"}}',
            "messages is an object, not a list of {role, content} or {from, value}",
        ),
        ('{"messages": [1]}', "messages[0] is int, not an object"),
        (messages(("usr", "a")), "messages[0].role is 'usr'; did you mean user"),
        (messages(("user", [{"type": "image"}])), "messages[0].content[0] is image, and only text"),
        (messages(("user", [{"type": "text"}])), "messages[0].content[0] is text, and only text"),
        (messages(("user", [{"text": "a"}])), "messages[0].content[0] is an object, and only text"),
        ("\x00", "not JSON: Expecting value at column 1"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(tmp_path, line, reason):
    path = rows(tmp_path / "a.jsonl", {"text": "fine"}, line)
    path.write_text(path.read_text(), encoding="utf-16")  # in which a zero byte is valid
    assert error_text(path).startswith(f"1 of 2 rows cannot be used\n  where         a.jsonl:2: {reason}")
    left = read_corpus(path, None, "skip")
    assert len(left) == 1 and left.left_out == {"skipped_rows": 1}


def test_a_file_that_turns_invalid_late_leaves_no_documents_and_one_bad_row(tmp_path):
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts" / "a.txt", "fine")
    write(tmp_path / "texts" / "b.txt", "good wörds\n".encode() * 110_000 + b"\xff")
    write(tmp_path / "texts" / "c.txt", "fine, too")
    assert "'DATA/b.txt' is not UTF-8" in error_text(tmp_path / "texts")
    left = read(tmp_path / "texts", "skip")
    assert documents(left) == [("a.txt", "fine"), ("c.txt", "fine, too")]
    assert left.left_out == {"skipped_rows": 1}
    (tmp_path / "rows").mkdir()
    for name, end in (("a", b""), ("b", "\n[]\nö".encode() + b"\xff"), ("c", b"")):
        row = f'{{"input": "{name}", "output": "x"}}'.encode()
        write(tmp_path / "rows" / f"{name}.jsonl", row + end)
    left = read(tmp_path / "rows", "skip")
    assert pairs(left) == [("a", "x"), ("c", "x")] and left.left_out == {"skipped_rows": 1}
