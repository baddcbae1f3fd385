"""The standard forms of instruction data in each format, and the error for other columns."""

import csv
import gzip
import io
import json
import shlex

import pytest

from gearshift.models.common.config import declared_columns
from gearshift.models.language.readers.file_corpus import read_corpus
from tests.models.errors import error_of

ASKED = "user a", "assistant b"
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
FORMS = {
    "messages": ({"messages": TALK, "id": 7}, ASKED),
    "tools": (
        {"messages": [TALK[0], {"role": "tool", "content": "t"}, TALK[1]]},
        ("user a", "tool t", "assistant b"),
    ),
    "ShareGPT": (
        {
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
            "system": "s",
        },
        ("system s", *ASKED),
    ),
    "Alpaca": ({"instruction": "a", "input": "c", "output": "b"}, ("user a\n\nc", "assistant b")),
    "Alpaca without input": ({"instruction": "a", "input": "", "output": "b"}, ASKED),
    "Alpaca with its prompts": (
        {"instruction": "a", "input": "c", "output": "b", "text": "a c b", "prompt": "a c"},
        ("user a\n\nc", "assistant b"),
    ),
    "Dolly": (
        {"instruction": "a", "context": "c", "response": "b", "category": "qa"},
        ("user a\n\nc", "assistant b"),
    ),
    "TRL": ({"Prompt": "a", "Completion": "b"}, ASKED),
    "TRL, conversational": ({"prompt": TALK[:1], "completion": TALK[1:]}, ASKED),
    "response": ({"prompt": "a", "response": "b"}, ASKED),
    "GSM8K": ({"question": "a", "answer": "b"}, ASKED),
    "OpenOrca": (
        {"id": "n", "system_prompt": "s", "question": "a", "response": "b"},
        ("system s", *ASKED),
    ),
    "input and output": ({"input": "a", "output": "b"}, ASKED),
    "numbers": ({"input": "a", "output": 4.5}, ("user a", "assistant 4.5")),
    "messages, request and text": (
        {"text": "x", "messages": TALK, "prompt": "x", "completion": "y"},
        ASKED,
    ),
    "text": ({"text": "once upon"}, "once upon"),
}


def in_jsonl(path, table):
    path.write_text("\n".join(map(json.dumps, table)))


def in_json(path, table):
    path.write_text(json.dumps({"version": 2, "data": table}, indent=1))


def in_array(path, table):
    path.write_text(json.dumps(table))


def csv_text(table, delimiter=","):
    """A table; lists are written as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(table[0])
    for row in table:
        writer.writerow(json.dumps(v) if isinstance(v, list) else v for v in row.values())
    return text.getvalue()


def in_csv(path, table):
    path.write_text(csv_text(table), newline="")


def in_semicolons_of_excel(path, table):
    path.write_text("sep=;\n" + csv_text(table, ";"), encoding="utf-8-sig")


def in_packed_tabs(path, table):
    path.write_bytes(gzip.compress(csv_text(table, "\t").encode()))


def in_sheet(path, table):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in csv.reader(io.StringIO(csv_text(table))):
        book.active.append(row)
    book.save(path)


def in_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(table), path)


def in_feather(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather

    feather.write_feather(pyarrow.Table.from_pylist(table), str(path))


FORMATS = {
    "a.jsonl": in_jsonl,
    "b.jsonl": in_array,
    "a.json": in_json,
    "a.csv": in_csv,
    "b.csv": in_semicolons_of_excel,
    "a.tsv.gz": in_packed_tabs,
    "a.xlsx": in_sheet,
    "a.parquet": in_parquet,
    "a.arrow": in_feather,
}


def read(path, *columns):
    return read_corpus(path, None, "stop", declared_columns(columns))


def said(record):
    """The text of a record, or its turns as `role text`."""
    if not record.before:
        return record.text
    return tuple(f"{turn.role} {turn.text}" for turn in record.conversation)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_in_each_format(tmp_path, form, name):
    row, expected = FORMS[form]
    if isinstance(row.get("prompt"), list) and name.endswith((".csv", ".tsv.gz", ".xlsx")):
        pytest.skip("a text that begins as a list may be a prompt")
    FORMATS[name](tmp_path / name, [row])
    [record] = read(tmp_path / name).records()
    assert said(record) == expected


@pytest.mark.parametrize(
    ("row", "meanings"),
    [
        (
            FORMS["Alpaca with its prompts"][0],
            {
                "instruction": "request",
                "input": "context",
                "output": "answer",
                "text": "left out",
                "prompt": "left out",
            },
        ),
        (
            FORMS["messages, request and text"][0],
            {
                "text": "left out",
                "messages": "messages",
                "prompt": "left out",
                "completion": "left out",
            },
        ),
        ({"prompt": "a", "text": "b"}, {"prompt": "left out", "text": "text"}),
    ],
)
def test_of_two_forms_one_is_read_and_the_columns_of_the_other_are_told(tmp_path, row, meanings):
    in_jsonl(tmp_path / "a.jsonl", [row])
    assert read(tmp_path / "a.jsonl").meanings == meanings


def test_a_declared_form_is_read_before_the_others(tmp_path):
    in_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b", "story": "c"}])
    [record] = read(tmp_path / "a.jsonl", "story=text").records()
    assert said(record) == "c"


def test_rows_of_several_forms_are_in_one_file_also_as_columns_with_nulls(tmp_path):
    table = [
        {"messages": TALK, "question": None, "answer": None, "extra": None},
        {"messages": None, "question": "c", "answer": "d", "extra": None},
    ]
    for name in ("a.jsonl", "a.parquet"):
        FORMATS[name](tmp_path / name, table)
        found = map(said, read(tmp_path / name).records())
        assert list(found) == [ASKED, ("user c", "assistant d")]


@pytest.mark.parametrize(
    ("row", "meanings"),
    [
        ({"Query": "a", "Reply": "b", "tag": "x"}, ["Query=request", "Reply=answer", "tag=ignore"]),
        ({"prompt": "a", "reply": "b"}, ["reply=answer"]),
        ({"prompt": "a", "response": "b", "x=y": "c", "it's": 1}, ["x=y=ignore", "it's=ignore"]),
        ({"userQuestion": "a", "bot_answer": 3}, ["userQuestion=request", "bot_answer=answer"]),
        ({"items": TALK, "n": 1}, ["items=messages", "n=ignore"]),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 2.5},
            ["chosen=answer", "rejected=ignore", "score_chosen=ignore"],
        ),
        (
            {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": TALK[1:]},
            ["chosen=answer", "rejected=ignore"],
        ),
        ({"body": "a", "stars": 5}, ["body=text", "stars=ignore"]),
        (
            {"question": "a", "answer": "b", "passage": "c", "level": 1},
            ["passage=context", "level=ignore"],
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_unknown_columns_are_one_error_whose_fix_names_all_and_reads_them(
    tmp_path, row, meanings, name
):
    if any(isinstance(value, list) for value in row.values()) and name == "a.csv":
        pytest.skip("a list is not known as messages in a cell whose column has another name")
    path = tmp_path / name
    FORMATS[name](path, [row])
    error = error_of(read, path)
    assert error.where == f"{name}:1"
    assert all(column in error.message for column in row)
    option, value = shlex.split(error.fix)
    key, _, columns = value.partition("=")
    assert (option, key, json.loads(columns)) == ("--set", "data.columns", meanings)
    assert len(read(path, *json.loads(columns))) == 1


def test_a_fix_has_the_columns_of_other_rows_and_those_declared(tmp_path):
    path = tmp_path / "a.jsonl"
    good = {"prompt": "a", "response": "b"}
    in_jsonl(path, [good, good | {"tag": 1}, {"messages": TALK, "score": 2}])
    error = error_of(read, path, "name=ignore")
    assert error.where == "a.jsonl:2"
    columns = set(json.loads(shlex.split(error.fix)[1].partition("=")[2]))
    assert columns == {"name=ignore", "tag=ignore", "score=ignore"}


@pytest.mark.parametrize(
    "table",
    [
        [{"en": "one", "de": "eins"}],
        [{"prompt": "a"}],
        [{"prompt": "a"}, {"response": "b"}],
        [{"prompt": "a", "difficulty": "hard"}],
        [{"question": "a", "answers": {"text": ["b"]}}],
    ],
)
def test_where_names_tell_nothing_there_is_a_hint_and_no_fix(tmp_path, table):
    in_jsonl(tmp_path / "a.jsonl", table)
    error = error_of(read, tmp_path / "a.jsonl")
    assert not error.fix and "data.columns=" in error.hint


def test_a_row_of_another_form_among_samples_is_a_bad_row(tmp_path):
    path = tmp_path / "b.jsonl"
    good = {"prompt": "a", "response": "b"}
    in_jsonl(path, [{"en": "one", "de": "eins"}, good, {"prompt": "c", "response": None}])
    assert error_of(read, path).where.startswith("b.jsonl:1: ")
    found = read_corpus(path, None, "skip")
    assert [said(record) for record in found.records()] == [ASKED]
    assert found.left_out["skipped_rows"] == 2
