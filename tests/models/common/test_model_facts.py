import pytest

from models.base import DataError
from models.common import model_facts
from models.common.model_facts import FACTS_FILE

FACTS = {"terms": ["signal"], "window_ms": 8.5}


def test_saved_facts_are_loaded_with_full_precision(tmp_path):
    model_facts.save({"window_ms": 100 / 3}, tmp_path / "run")
    assert model_facts.load(tmp_path / "run", ["window_ms"]) == {"window_ms": 100 / 3}


def test_the_last_setup_counts_and_equal_facts_are_not_written_again(tmp_path):
    model_facts.save(FACTS, tmp_path)
    before = (tmp_path / FACTS_FILE).stat()
    model_facts.save(FACTS, tmp_path)
    assert (tmp_path / FACTS_FILE).stat().st_ino == before.st_ino
    model_facts.save({"terms": []}, tmp_path)
    assert model_facts.load(tmp_path, ["terms"]) == {"terms": []}


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_facts.save(FACTS, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        ("{", "cannot be read: Expecting"),
        ("3", "cannot be read: argument of type 'int'"),
        ('{"terms": []}', "lacks window_ms"),
    ],
)
def test_a_folder_without_the_facts_is_an_error(tmp_path, content, problem):
    if content is not None:
        (tmp_path / FACTS_FILE).write_text(content)
    with pytest.raises(DataError) as error:
        model_facts.load(tmp_path, ["terms", "window_ms"])
    assert error.value.message.startswith(f"'{tmp_path / FACTS_FILE}' {problem}")
    assert error.value.where == str(tmp_path) and "resume the run" in error.value.fix
