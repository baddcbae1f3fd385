import csv
import io
import json
from pathlib import Path

import pytest

from models.base import DataError
from models.common.split import split_groups
from models.language.readers.records import Turn
from tests.models.language.reading import documents, exchanges, groups, pairs, read, texts, write

SAMPLE = Path(__file__).parents[4] / "shared/data/language"

# --- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["input,output", "prompt,response", "user,assistant"])
def test_csv_with_quoted_line_breaks_and_other_columns(tmp_path, header):
    content = f'{header},kind\nhow,"one\ntwo ""three""",x\nwhy,because,y\n'
    corpus = read(write(tmp_path / "a.csv", content))
    assert pairs(corpus) == [("how", 'one\ntwo "three"'), ("why", "because")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_with_a_mark_and_all_line_ends_read_the_same(tmp_path, encoding, end):
    content = 'input,output\nwie,"grün\nblau"\n'.replace("\n", end)
    corpus = read(write(tmp_path / "a.csv", content.encode(encoding)))
    assert pairs(corpus) == [("wie", "grün\nblau")]


def test_json_lines_of_pairs_and_messages(tmp_path):
    rows = [
        {"prompt": "a", "response": "b"},
        {
            "messages": [
                {"role": "system", "content": "brief"},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"},
                {"role": "user", "content": "e"},
                {"role": "assistant", "content": "f"},
            ]
        },
    ]
    corpus = read(write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, rows))))
    assert pairs(corpus) == [("a", "b"), ("c", "d"), ("e", "f")]
    assert [t.text for t in exchanges(corpus)[2].before] == ["brief", "c", "d", "e"]
    # All answers of one conversation are on one side of a split.
    asked = groups(corpus)
    assert asked[1] == asked[2] != asked[0]


def test_json_lines_of_texts(tmp_path):
    corpus = read(write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two"}\n'))
    assert texts(corpus) == ["one", "two"]


def test_plain_text_with_roles_is_conversations(tmp_path):
    content = (
        "User: a\nAssistant: b\nb2\n\nSystem: s\nUser: c\n\nAssistant: d\nUser: e\nAssistant: f\n"
    )
    corpus = read(write(tmp_path / "a.txt", content))
    assert pairs(corpus) == [("a", "b\nb2"), ("c", "d"), ("e", "f")]
    assert exchanges(corpus)[1].before == (Turn("system", "s"), Turn("user", "c"))


def test_a_plain_text_file_becomes_documents_of_whole_blocks(tmp_path):
    content = "\n\n\n".join(f"block {i}\nsecond line" for i in range(400))
    corpus = read(write(tmp_path / "a.txt", content))
    assert 40 <= len(corpus) <= 60
    joined = "\n\n".join(texts(corpus))
    assert joined == content.replace("\n\n\n", "\n\n")
    assert all(text.startswith("block") for text in texts(corpus))


def test_a_text_without_blank_lines_is_taken_line_by_line(tmp_path):
    corpus = read(write(tmp_path / "a.txt", "\n".join(f"line number {i}" for i in range(90))))
    assert len(corpus) > 30


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
    asked, answered = write(tmp_path / "a.nl", "a\nb\n"), write(tmp_path / "a.cm", "x\ny\n")
    assert pairs(read(asked, answers=answered)) == [("a", "x"), ("b", "y")]
    write(answered, "x\ny\nz\n")
    with pytest.raises(DataError, match=r"has 2 lines and .* has 3"):
        read(asked, answers=answered)


# --- duplicates and leaks ----------------------------------------------------------------------


def test_equal_requests_are_one_before_the_split_and_counted(tmp_path):
    rows = [("List  all", "ls"), ("list all", "ls -a"), ("LIST ALL ", "ls"), ("other", "x")]
    content = "input,output\n" + "\n".join(f"{q},{a}" for q, a in rows)
    corpus = read(write(tmp_path / "a.csv", content))
    assert pairs(corpus) == [("List  all", "ls"), ("other", "x")]
    assert corpus.left_out["duplicates"] == 2


def test_no_request_and_no_text_is_on_two_sides_of_a_split(tmp_path):
    content = "input,output\n" + "\n".join(f"ask {i % 30},{i}" for i in range(90))
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(60):
        write(folder / f"{i}.txt", f"text {i % 30}")
    for path in (write(tmp_path / "a.csv", content), folder):
        corpus = read(path)
        splits = split_groups(groups(corpus), 1.0, 0.2, seed=0, noun="groups")
        side = {group: name for name, ids in splits.items() for group in ids}
        if corpus.is_text:
            told = [(text, side[group]) for group, text in documents(corpus)]
        else:
            told = [(e.before[-1].text, side[e.group]) for e in exchanges(corpus)]
        assert len(told) == len(dict(told)) == 30


def test_conversations_that_begin_alike_are_on_one_side(tmp_path):
    def line(second):
        turns = [("user", "Hello"), ("assistant", "hi"), ("user", second), ("assistant", "ok")]
        return json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]})

    corpus = read(write(tmp_path / "a.jsonl", "\n".join(map(line, ("one", "two", "three")))))
    assert len(set(groups(corpus))) == 1
    assert pairs(corpus) == [("Hello", "hi"), ("one", "ok"), ("two", "ok"), ("three", "ok")]
    assert corpus.left_out["duplicates"] == 2


# --- real files --------------------------------------------------------------------------------


def test_a_real_csv_with_broken_rows():
    path = SAMPLE / "synthetic_system_assistant.csv"
    if not path.exists():
        pytest.skip(f"the sample file {path.name} is not beside the checkout")
    with pytest.raises(DataError, match="52 of 298 rows cannot be used"):
        read(path)
    corpus = read(path, "skip")
    rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    good = [row[:2] for row in rows if len(row) == 3][1:]
    assert len(corpus) == len(good) == 246
    assert pairs(corpus) == [(q, a.strip()) for q, a in good]


def test_real_parallel_files():
    if not (SAMPLE / "all.nl").exists():
        pytest.skip("the sample files all.nl and all.cm are not beside the checkout")
    corpus = read(SAMPLE / "all.nl", answers=SAMPLE / "all.cm")
    assert len(corpus) + corpus.left_out["duplicates"] == 12_606
    assert len({e.before[-1].text.lower() for e in exchanges(corpus)}) == len(corpus)
