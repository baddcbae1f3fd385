import csv
import gzip
import json

import pytest

from gearshift.models.base import DataError
from gearshift.models.common.split import SplitRule, split_groups
from gearshift.models.language.readers import plain_text
from gearshift.models.language.readers.file_corpus import read_corpus
from tests.models.errors import error_of
from tests.models.language.reading import (
    documents,
    error_text,
    exchanges,
    groups,
    pairs,
    read,
    texts,
    write,
)
from tests.privileges import unreadable

ROWS = [{"prompt": f"ask {i}", "response": f'answer {i}, \\ ["]'} for i in range(40)]


def rows(path, *given):
    """JSON lines, of text as it is or of other values."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in given)
    return write(path, "\n".join(lines))


def messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def in_csv(path, table):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([table[0].keys(), *(row.values() for row in table)])
    return path


def in_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


def in_columns(path, table):
    columns = {name: [row[name] for row in table] for name in table[0]}
    return write(path, json.dumps(columns))


def saved_to_disk(path, table):
    """What datasets.save_to_disk writes."""
    pyarrow = pytest.importorskip("pyarrow")
    path.mkdir()
    whole = pyarrow.Table.from_pylist(table)
    with pyarrow.ipc.new_stream(path / "data-00000-of-00001.arrow", whole.schema) as stream:
        stream.write_table(whole, max_chunksize=16)
    write(path / "dataset_info.json", '{"features": {}}')
    write(path / "state.json", '{"_data_files": []}')
    return path


def rows_or_text(path, table):
    if path.suffix == ".txt":
        return write(path, "\n\n".join(" ".join(row.values()) for row in table))
    return rows(path, *table)


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("a.jsonl", lambda path, table: rows(path, *table)),
        ("a.json", lambda path, table: rows(path, *table)),
        ("a.json", lambda path, table: write(path, json.dumps(table))),
        ("a.json", lambda path, table: write(path, f"\n{json.dumps(table, indent=2)}")),
        ("a.CSV", in_csv),
        ("a.json", in_columns),
        ("a.parquet", in_parquet),
        ("a", saved_to_disk),
    ],
)
def test_each_format_gives_the_same_rows(tmp_path, name, store):
    assert pairs(read(store(tmp_path / name, ROWS))) == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize(
    ("train", "test", "others"),
    [
        ("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl", "test (1 files)"),
        ("data/train_sft-00000-of-00001.jsonl", "data/test_sft-0-of-1.jsonl", "test_sft (1 files)"),
        ("train/data.jsonl", "validation/data.jsonl", "validation (1 files)"),
        ("train.csv", "more.csv", "1 files that name none"),
        ("wiki.train.txt", "wiki.test.txt", "test (1 files)"),
    ],
)
def test_of_a_folder_with_splits_only_the_files_for_training_are_read(
    tmp_path, train, test, others
):
    store = in_csv if train.endswith("csv") else rows_or_text
    for name, table in ((train, ROWS), (test, [{"prompt": "held", "completion": "out"}])):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        store(path, table)
    corpus = read(tmp_path / "set")
    assert corpus.source.other_splits.endswith(others)
    assert not any("held" in str(record) for record in corpus.records())
    whole = read_corpus(tmp_path / "set", None, "stop", has_one_split=True)
    assert any("held" in str(record) for record in whole.records())


def test_without_files_for_training_all_are_read(tmp_path):
    for name in ("tests/a.py", "training/b.py", "val/c.txt"):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name, f"name = '{name}'")
    corpus = read(tmp_path)
    assert len(corpus) == 3 and corpus.source.other_splits == ""


def test_a_plain_text_file_becomes_documents_of_whole_blocks_or_lines(tmp_path):
    content = "\n\n\n".join(f"block {i}\nsecond line" for i in range(400))
    corpus = read(write(tmp_path / "a.txt", content))
    assert 40 <= len(corpus) <= 60
    assert "\n\n".join(texts(corpus)) == content.replace("\n\n\n", "\n\n")
    assert all(text.startswith("block") for text in texts(corpus))
    lines = write(tmp_path / "b.txt", "\n".join(f"line number {i}" for i in range(90)))
    assert len(read(lines)) > 30


@pytest.mark.parametrize("separator", [" ", ""])
def test_a_text_of_one_line_is_cut_by_position_and_says_so(tmp_path, separator):
    words = [f"{n}{separator}" for n in range(20_000)]
    corpus = read(write(tmp_path / "text8", "".join(words)))
    assert 20 <= len(corpus) <= 60
    assert "".join(texts(corpus)) == "".join(words)
    assert all(text.startswith(separator) for text in texts(corpus)[1:])
    assert list(corpus.meanings) == ["text8"]


def test_lines_of_json_are_not_trained_on_as_text(tmp_path):
    content = json.dumps({"prompt": "a", "response": "b"})
    for name in ("lines", "lines.txt"):
        error = error_of(read, write(tmp_path / name, content))
        assert error.where.endswith(name) and ".jsonl" in error.hint
    assert pairs(read(write(tmp_path / "lines.jsonl", content))) == [("a", "b")]


def test_a_folder_gives_a_document_for_each_file_in_the_order_of_names(tmp_path):
    for folder in ("b", ".git"):
        (tmp_path / folder).mkdir()
    for name, content in (
        ("z.txt", "last"),
        ("b/m.py", "middle\n\nwith a blank line"),
        ("a.md", "first"),
        ("b/__init__.py", "\n"),
    ):
        write(tmp_path / name, content)
    for name in (".git/x.txt", "image.png", "package.json"):
        write(tmp_path / name, '{"name": 1}')
    corpus = read(tmp_path)
    expected = [("a.md", "first"), ("b/m.py", "middle\n\nwith a blank line"), ("z.txt", "last")]
    assert documents(corpus) == expected and corpus.left_out["ignored_files"] == 2


def test_a_readme_beside_rows_is_no_data(tmp_path):
    write(tmp_path / "README.md", "about the rows")
    write(tmp_path / "LICENSE", "of the rows")
    assert texts(read(tmp_path)) == ["about the rows"]
    (tmp_path / "data").mkdir()
    rows(tmp_path / "data" / "train-00000.jsonl", *ROWS[:3])
    corpus = read(tmp_path)
    assert len(pairs(corpus)) == 3 and corpus.left_out["ignored_files"] == 2


def test_a_long_text_is_cut_at_line_ends_into_texts_of_one_group(tmp_path):
    content = "\n".join(f"line number {i}" for i in range(40_000))
    write(tmp_path / "a.txt", content)
    write(tmp_path / "b.txt", "short")
    write(tmp_path / "c.txt", "shorter")
    corpus = read(tmp_path)
    (*parts, short, shorter) = texts(corpus)
    assert "\n".join(parts) == content and len(parts) > 1
    assert (short, shorter) == ("short", "shorter")
    assert max(map(len, parts)) < 1.1 * plain_text.PART
    assert set(groups(corpus)) == {"a.txt", "b.txt", "c.txt"}
    in_rows = [{"text": content}, {"text": short}, {"text": shorter}]
    assert texts(read(rows(tmp_path / "d.jsonl", *in_rows))) == [*parts, short, shorter]


def test_line_n_of_a_second_file_answers_line_n(tmp_path):
    requests, answers = write(tmp_path / "a.nl", "a\nb\n"), write(tmp_path / "a.cm", "x\ny\n")
    assert pairs(read(requests, answers=answers)) == [("a", "x"), ("b", "y")]
    write(answers, "x\ny\nz\n")
    assert error_of(read, requests, answers=answers).where.endswith("line 3")


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
    first = [("system", "brief"), ("user", "Hello"), ("assistant", "hi")]
    talks = [messages(*first, ("user", x), ("assistant", "ok")) for x in ("one", "two", "three")]
    corpus = read(rows(tmp_path / "a.jsonl", *talks, "", {"prompt": "a", "response": "b"}))
    assert pairs(corpus) == [
        ("Hello", "hi"),
        ("one", "ok"),
        ("two", "ok"),
        ("three", "ok"),
        ("a", "b"),
    ]
    assert [turn.text for turn in exchanges(corpus)[1].before] == ["brief", "Hello", "hi", "one"]
    *found, other = groups(corpus)
    assert len(set(found)) == 1 and other not in found


def test_a_folder_without_permission_is_an_error(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder / "a.txt", "text")
    with unreadable(folder):
        assert error_of(read, folder).where == "data.path"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"prompt": "a", "response": "b"}\n'), ("a.CSV", "prompt,response\na,b\n")],
)
def test_compressed_files_give_the_same_records(tmp_path, name, content):
    (tmp_path / "folder").mkdir()
    raw = gzip.compress(content.encode())
    path = write(tmp_path / "folder" / f"{name}.gz", raw)
    write(tmp_path / "folder" / "b.tar.gz", gzip.compress(b"ignored"))
    for place in (path, tmp_path / "folder"):
        assert pairs(read(place)) == [("a", "b")]
    assert error_text(write(path, raw[:-12])).startswith("'DATA' cannot be read: ")


@pytest.mark.parametrize(
    "line",
    [
        *(
            '{"text": NaN}',
            '{"input": null, "output": "b"}',
            '{"text": "\\ud800"}',
            "[1]",
            '{"prompt": "a", ',
        ),
        *('{"\\udc00": 1, "text": "x"}', "[" * 100_000, '{"text": ' + "9" * 5000 + "}", "\x00"),
        *('{"messages": {"role": "user"}}', '{"messages": [1]}', messages(("usr", "a"))),
        messages(("user", [{"type": "image"}])),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(tmp_path, line):
    path = rows(tmp_path / "a.jsonl", {"text": "fine"}, line)
    path.write_text(path.read_text(), encoding="utf-16")  # in which a zero byte is valid
    error = error_of(read, path)
    assert error.message.startswith("1 of 2 rows") and error.where.startswith("a.jsonl:2: ")
    left = read(path, "skip")
    assert len(left) == 1 and left.left_out == {"skipped_rows": 1}


def test_an_array_is_read_by_row_and_an_invalid_one_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path / "a.json", '[{"prompt": "a", "response": "b"},\n7]')
    assert "a.json:2: " in error_of(read, path).where and len(read(path, "skip")) == 1
    for content in ("5", '"text"', '{"data": 5}'):
        assert "a.json:1" in error_of(read, write(path, content)).where
    for content in (
        '[{"text": "a"},\n{"text": }]',
        '[{"text": "a"},\n{"text": "b',
        '[{"text": "a"}]\n[]',
    ):
        assert error_of(read, write(path, content)).where == "a.json:2"


def test_parquet_that_unpacks_to_far_more_or_is_damaged_is_an_error(tmp_path):
    path = in_parquet(tmp_path / "a.parquet", [{"prompt": "x" * 10**6, "response": "y"}] * 80)
    assert "unpacks to" in error_text(path)
    path.write_bytes(in_parquet(path, ROWS).read_bytes()[:-100])
    assert error_of(read, path).where.startswith("data.path")


def test_a_file_that_turns_invalid_late_leaves_no_documents_and_one_bad_row(tmp_path):
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts" / "a.txt", "fine")
    write(tmp_path / "texts" / "b.txt", "good wörds\n".encode() * 110_000 + b"\xff")
    write(tmp_path / "texts" / "c.txt", "fine, too")
    write(tmp_path / "texts" / "d.txt", "fine as well")
    with pytest.raises(DataError, match=r"b\.txt' is not UTF-8"):
        read(tmp_path / "texts")
    left = read(tmp_path / "texts", "skip")
    assert documents(left) == [("a.txt", "fine"), ("c.txt", "fine, too"), ("d.txt", "fine as well")]
    assert left.left_out == {"skipped_rows": 1}


@pytest.mark.parametrize("names", [["a.txt"], ["a.txt", "b.txt"]])
def test_of_few_files_the_blocks_of_each_are_documents(tmp_path, names):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in names:
        write(folder / name, "\n".join(f"line {n} of {name}" for n in range(3000)))
    corpus = read(folder)
    assert len(set(groups(corpus))) == len(corpus) >= 3 * len(names)
    for name in names:
        parts = [text for group, text in documents(corpus) if group.startswith(name)]
        assert "\n".join(parts) == (folder / name).read_text()
