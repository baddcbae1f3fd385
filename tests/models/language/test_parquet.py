import sys

import pytest

from tests.models.language.reading import error_text, exchanges, pairs, read, write

ROWS = [{"prompt": f"ask {i}", "response": f"answer {i}"} for i in range(3000)]


@pytest.fixture
def table():
    """Writes rows to a file."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow
    from pyarrow import parquet

    def write_table(path, rows):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    return write_table


def test_a_table_gives_the_rows_of_json_lines(tmp_path, table):
    expected = [(row["prompt"], row["response"]) for row in ROWS]
    assert pairs(read(table(tmp_path / "a.parquet", ROWS))) == expected
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [("user", parts), ("assistant", parts[:1])]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    [found] = exchanges(read(table(tmp_path / "b.parquet", [row])))
    assert [turn.text for turn in found.before] == ["a\nb"] and found.answer == "a"


@pytest.mark.parametrize("use_dictionary", [False, True])
def test_a_small_table_that_unpacks_to_far_more_than_real_data_is_an_error(tmp_path, use_dictionary):
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.table({"prompt": ["x" * 10**6] * 80, "response": ["y"] * 80})
    path = tmp_path / "a.parquet"
    parquet.write_table(rows, path, use_dictionary=use_dictionary, compression="zstd")
    assert "unpacks to" in error_text(path)


def test_a_damaged_table_is_an_error(tmp_path, table):
    path = table(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-100])
    assert error_text(path).startswith("'a.parquet' is not Parquet: ")


def test_without_pyarrow_the_error_has_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = error_text(write(tmp_path / "a.parquet", b"PAR1"))
    assert message.startswith("'a.parquet' needs pyarrow, which is not installed\n")
    assert message.endswith("fix           pip install pyarrow")
