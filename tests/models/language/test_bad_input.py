"""Files and rows that cannot be used: what is told, to the letter."""

import os

import pytest

from tests.models.language.reading import pairs, read, told, write


def test_a_missing_path(tmp_path):
    assert told(tmp_path / "none.txt") == (
        "data.path 'DATA' does not exist\n"
        "  where         looked for DATA\n"
        "  allowed       a file or folder of text, JSONL or CSV; embedded:python, embedded:commands"
    )


def test_an_empty_file(tmp_path):
    assert told(write(tmp_path / "a.txt", " \n\n")) == (
        "'DATA' is empty\n  where         data.path, 3 bytes\n  allowed       a file with text"
    )


def test_a_folder_without_text(tmp_path):
    write(tmp_path / "a.png", b"\x89PNG")
    assert told(tmp_path).startswith(
        "data.path 'DATA' holds no file of a known suffix (1 others)\n"
    )


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"ok\nsch\xf6n\n", "line 2, byte 6"), (b"ok\nno\0text", "line 2, byte 5")],
)
def test_text_that_is_no_utf8(tmp_path, content, place):
    message = told(write(tmp_path / "a.txt", content))
    assert message.startswith("'DATA' is no UTF-8 text: ")
    assert f"  where         DATA, {place}\n" in message
    assert message.endswith("iconv -f LATIN1 -t UTF-8 'DATA'")


@pytest.fixture
def without_privileges():
    """Root may read everything: take its rights away for the length of a test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_that_may_not_be_read(tmp_path, request):
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder / "a.txt", "text")
    folder.chmod(0)
    request.getfixturevalue("without_privileges")
    try:
        message = told(folder)
    finally:
        if os.geteuid() == os.getuid():
            folder.chmod(0o700)
    assert "cannot be read: Permission denied\n  where         data.path\n" in message


def test_broken_json_lines_are_told_together_with_their_lines(tmp_path):
    lines = [
        '{"prompt": "a", "response": "b"}',
        '{"prompt": "a", ',
        '{"question": "a"}',
        "[1]",
        '{"messages": [{"role": "usr", "content": "a"}]}',
        '{"prompt": "a", "response": " "}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert told(path) == (
        "5 of 6 rows cannot be used\n"
        "  where         a.jsonl:2: no JSON: Expecting property name enclosed in double quotes at "
        "column 17\n"
        "                a.jsonl:3: no usable text under the keys question; legal  text; input, "
        "output; prompt, response; user, assistant; messages: [{role, content}]\n"
        "                a.jsonl:4: list, not an object; legal keys  text; input, output; prompt, "
        "response; user, assistant; messages: [{role, content}]\n"
        "                and 2 more\n"
        "  fix           repair them, or skip them with  --set data.on_bad=skip"
    )
    corpus = read(path, "skip")
    assert len(corpus) == 1 and corpus.left_out["skipped_rows"] == 5


def test_a_misspelt_role_is_told_with_the_nearest(tmp_path):
    jsonl = write(tmp_path / "a.jsonl", '{"messages": [{"role": "usr", "content": "a"}]}')
    assert "message 1: 'usr' is no role; nearest  user" in told(jsonl)
    text = write(tmp_path / "a.txt", "User: a\nAssistant: b\n\nUser: c\nAsistant: d\n")
    assert "a.txt:4: 'Asistant:' is no role; nearest  Assistant:" in told(text)


def test_conversations_without_an_answer_are_told(tmp_path):
    text = write(tmp_path / "a.txt", "User: a\nAssistant:\n\nUser: b\n\nUser: c\nAssistant: d\n")
    assert told(text) == (
        "2 of 3 rows cannot be used\n"
        "  where         a.txt:1: Assistant: says nothing\n"
        "                a.txt:4: no request with an answer\n"
        "  fix           repair them, or skip them with  --set data.on_bad=skip"
    )
    assert pairs(read(text, "skip")) == [("c", "d")]


def test_csv_without_known_columns(tmp_path):
    assert told(write(tmp_path / "a.csv", "question,answer\na,b\n")) == (
        "'a.csv' has no pair of columns for request and answer: question, answer\n"
        "  where         a.csv:1\n"
        "  allowed       input,output or prompt,response or user,assistant\n"
        "  fix           rename the columns in the first line"
    )


def test_csv_with_short_rows_and_empty_answers(tmp_path):
    path = write(tmp_path / "a.csv", 'input,output\n"a\na",b\nc\n\nd,\n')
    assert told(path) == (
        "2 of 3 rows cannot be used\n"
        "  where         a.csv:4: 1 of 2 columns\n"
        "                a.csv:6: the answer is empty\n"
        "  fix           repair them, or skip them with  --set data.on_bad=skip"
    )


def test_nothing_left_after_skipping(tmp_path):
    path = write(tmp_path / "a.csv", "input,output\na\n")
    assert told(path, "skip").startswith("'DATA' holds nothing to learn from\n")


def test_text_and_conversations_together(tmp_path):
    write(tmp_path / "a.csv", "input,output\na,b\n")
    write(tmp_path / "b.txt", "prose")
    assert told(tmp_path).startswith(
        "'DATA' holds both plain text (1 documents) and conversations (1)\n"
    )


def test_a_file_that_is_no_text_can_be_skipped_among_others(tmp_path):
    write(tmp_path / "a.txt", "fine")
    write(tmp_path / "b.txt", b"\xff\xfe\xff")
    assert "'DATA/b.txt' is no UTF-16 text" in told(tmp_path)
    corpus = read(tmp_path, "skip")
    assert len(corpus) == 1 and corpus.left_out["skipped_rows"] == 1
